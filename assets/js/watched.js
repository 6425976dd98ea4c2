/* What an aligning method is watched by: which of its numbers share a chart, in which order, and the figures at the top.
   A chart appears with its first number. Its title is watch.ID, its sentence watch.ID.healthy, or watch.ID.healthy.METHOD. */
(() => {
  "use strict";
  const studio = window.studio;

  /* id, lines: [[name, colour]], and what else there is:
     each: a pattern whose first group names a line · band: names of the lowest and the highest, or [name, its spread]
     right: a share, on an axis of its own · big: across the whole width · signed: may be negative, so never logarithmic */
  const CHARTS = [
    { id: "win_rate", lines: [["win_rate", "accent"]], big: true },
    { id: "reward", lines: [["reward", "accent"]], spread: ["reward", "reward_std"], big: true, signed: true },
    { id: "scores", lines: [["objective/scores", "accent"], ["objective/rlhf_reward", "c2"], ["objective/scores_margin", "c3"]], big: true, signed: true },
    { id: "reward_parts", each: /^rewards\/(.+)\/mean$/, signed: true },
    { id: "preference", lines: [["rewards/chosen", "good"], ["rewards/rejected", "bad"], ["rewards/margins", "accent"]], big: true, signed: true },
    { id: "told_apart", lines: [["rewards/accuracies", "accent"]] },
    { id: "ranked", lines: [["accuracy", "accent"]], big: true },
    { id: "distance", lines: [["margin", "accent"]], signed: true },
    { id: "scores_given", lines: [["mean_reward", "accent"]], band: ["min_reward", "max_reward"], signed: true },
    { id: "loss" },
    { id: "sides", lines: [["on_policy_loss", "accent"], ["off_policy_loss", "c2"]] },
    { id: "length", lines: [["completions/mean_length", "accent"]], band: ["completions/min_length", "completions/max_length"], right: ["completions/clipped_ratio", "c3"] },
    { id: "kl", lines: [["kl", "accent"], ["objective/kl", "accent"]], signed: true },
    { id: "entropy", lines: [["entropy", "accent"], ["objective/entropy", "accent"], ["policy/entropy_avg", "accent"]], signed: true },
    { id: "no_lesson", lines: [["frac_reward_zero_std", "accent"]] },
    { id: "clipped", lines: [["clip_ratio/region_mean", "accent"], ["clip_ratio/high_mean", "c2"], ["clip_ratio/low_mean", "c3"], ["policy/clipfrac_avg", "accent"]] },
    { id: "odds", lines: [["log_odds_chosen", "accent"], ["log_odds_ratio", "c2"]], signed: true },
    { id: "imitation", lines: [["nll_loss", "accent"]] },
    { id: "value", lines: [["loss/value_avg", "accent"], ["loss/policy_avg", "c2"]], signed: true },
    { id: "likely", lines: [["logps/chosen", "good"], ["logps/rejected", "bad"]], signed: true },
  ];
  /* A search over the numbers of a merge: every candidate, the best so far, and that on the rows kept from the search. */
  const SEARCH = {
    charts: [{ id: "search", lines: [["objective", "faint"], ["best", "accent"], ["best_held_out", "eval"]], big: true, signed: true }],
    tiles: [[["best", "best"]], [["best_held_out", "best_held_out"]], [["objective", "objective"]]],
  };
  /* The figures at the top: each the first of its alternatives that has a value. */
  const TILES = {
    pairs: [[["accuracy", "rewards/accuracies"]], [["margin", "rewards/margins"]], [["loss", "loss"]]],
    unpaired: [[["margin", "rewards/margins"]], [["kl", "kl"]], [["loss", "loss"]]],
    prompts: [[["win_rate", "win_rate"], ["reward", "reward"], ["reward", "objective/scores"]], [["kl", "kl"], ["kl", "objective/kl"], ["entropy", "entropy"]],
      [["length", "completions/mean_length"], ["margin", "rewards/margins"], ["loss", "loss"]]],
    scorer: [[["accuracy", "eval_accuracy"], ["accuracy", "accuracy"]], [["margin", "margin"]], [["loss", "loss"]]],
    teacher: [[["loss", "loss"]], [["length", "completions/mean_length"], ["eval_loss", "eval_loss"]], [["speed", "tokens_per_second"]]],
  };
  /* Warnings of a run, by their code -> the charts that show what they speak of. */
  const WARNED = {
    "not-a-number": ["loss"], "loss-spike": ["loss"], divergence: ["loss"], plateau: ["loss"], overfitting: ["loss"],
    "exploding-gradients": ["grad_norm"], "vanishing-gradients": ["grad_norm"], "no-gradient": ["grad_norm"],
    "learning-rate-high": ["learning_rate"], "learning-rate-low": ["learning_rate"],
    "accuracy-stuck": ["told_apart", "ranked", "mean_token_accuracy"], "both-fall": ["preference"], "length-hacking": ["length"],
    "answers-cut": ["length"], "equal-rewards": ["no_lesson"], "kl-blow-up": ["kl"], "entropy-collapse": ["entropy"],
  };

  /** How a run of this kind and method is watched; null for plain training, whose charts are by name. */
  studio.watched = ({ kind, method }) => {
    const search = kind === "merge" && method === "evolve";
    if (kind !== "align" && !search) return null;
    const { group, shape } = studio.methodOf(kind, method), writes = shape === "prompts";
    const charts = search ? SEARCH.charts : CHARTS.filter(({ id }) => !(writes && id === "loss")) // the loss of such a method says nothing
      .map((spec) => (spec.id === "loss" && group === "teacher" ? { ...spec, big: true } : spec.id === "loss" ? { ...spec, big: false } : spec));
    return {
      charts,
      tiles: search ? SEARCH.tiles : TILES[group] || TILES[shape] || TILES.teacher,
      rolls: writes,
      healthy: (id) => [`watch.${id}.healthy.${method}`, `watch.${id}.healthy`].find(studio.known),
      /** The chart a number belongs to (without the eval_ of validation), or undefined. */
      of: (name) => charts.find((c) => c.id === name || c.lines?.some(([n]) => n === name) || c.each?.test(name) || c.band?.includes(name) || c.spread?.includes(name) || c.right?.[0] === name),
    };
  };

  /** The charts that a warning's code belongs to. */
  studio.warnedAt = (code) => WARNED[code] || [];
})();
