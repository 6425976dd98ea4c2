/* The scores of an evaluation: a bar with its standard error for each model and task, the best marked, and what changed from one
   model to the others by the answers to the same questions. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const WIDE = 4;  // models beyond which they stand in lines, if the tasks are fewer
  /** What a task is called. */
  studio.evalTask = (name, about) => (name === "heldout" ? t("eval.heldout") : about?.title || name);
  const isNumber = (v) => typeof v === "number" && isFinite(v);

  /** A share of the questions is told in percent; anything else as the number it is. */
  const isShare = (metric) => metric?.low === 0 && metric?.high === 1;
  studio.evalNumber = (value, metric) => (!isNumber(value) ? "–" : isShare(metric) ? `${(100 * value).toFixed(1)} %` : studio.num(value));
  const plain = (value, metric) => (isShare(metric) ? (100 * value).toFixed(1) : studio.num(value, 3));
  const signed = (value, metric) => `${value > 0 ? "+" : value < 0 ? "−" : "±"}${plain(Math.abs(value), metric)}`;

  class Scores {
    constructor(frame, place) {
      Object.assign(this, { frame, place, base: 0, all: false, pairs: new Map() });
      place.addEventListener("change", (event) => { if (event.target.matches("[data-base]")) { this.base = Number(event.target.value); this.changed(); } });
      place.addEventListener("click", (event) => {
        const { metrics, task, model, where } = event.target.closest("button")?.dataset || {};
        if (metrics) { this.all = metrics === "all"; this.changed(); }
        if (task) frame.answers.want({ task, models: model ? [this.base, Number(model)] : null, where: where || "all" });
      });
    }

    reset({ base, metrics } = {}) { Object.assign(this, { base: Number(base) || 0, all: metrics === "all", pairs: new Map(), asked: "" }); }
    address() { return { base: this.base || null, metrics: this.all ? "all" : null }; }
    changed() { this.pairs = new Map(); this.asked = ""; this.frame.address(); this.draw(this.run, this.results); }

    draw(run, results) {
      Object.assign(this, { run, results });
      const { models, scores } = results;
      this.place.hidden = !scores.length;
      if (this.place.hidden) return;
      if (this.base >= models.length) this.base = 0;
      this.render();
      const key = `${run.id}/${this.base}/${results.whole}`;
      if (results.whole && results.answers && models.length > 1 && this.asked !== key) { this.asked = key; this.compare(key); }
    }

    /** Differences to the base, over the questions that both answered. */
    async compare(key) {
      const { run, base } = this, others = this.results.models.map((_, i) => i).filter((i) => i !== base);
      for (const model of others) {
        let found;
        try { found = await studio.call("eval_pairs", { a: { run: run.id, model: base }, b: { run: run.id, model } }); } catch (error) { if (!error.offline) console.warn("differences:", error.message); return; }
        if (this.asked !== key) return;
        for (const one of found) this.pairs.set(`${model}/${one.task}/${one.metric}`, one);
        this.render();
      }
    }

    /** Lines of the table: the main figure of each task, or every one. */
    lines() {
      const { tasks, scores } = this.results, made = [];
      for (const [task, about] of Object.entries(tasks)) {
        const there = [...new Set(scores.filter((s) => s.task === task && isNumber(s.value)).map((s) => s.metric))];
        const ordered = [about.main, ...Object.keys(about.metrics || {})].filter((name, i, all) => there.includes(name) && all.indexOf(name) === i), rest = there.filter((name) => !ordered.includes(name));
        for (const metric of this.all ? [...ordered, ...rest] : (ordered.length ? ordered : rest).slice(0, 1)) made.push({ task, metric, about, how: about.metrics?.[metric] || { higher_is_better: true } });
      }
      return made;
    }

    score(model, line) { return this.results.scores.find((s) => s.model === model && s.task === line.task && s.metric === line.metric); }

    cell(model, line) {
      const { models } = this.results, found = this.score(model, line), value = found?.value, how = line.how;
      if (!isNumber(value)) return `<td class="ev-cell"><span class="st-muted">${found ? "–" : esc(t(studio.active(this.run.state) ? "eval.waiting" : "eval.missing"))}</span></td>`;
      const all = models.map((_, i) => this.score(i, line)).filter((s) => isNumber(s?.value)), values = all.map((s) => s.value);
      const best = values.length > 1 && new Set(values).size > 1 && value === (how.higher_is_better === false ? Math.min : Math.max)(...values);
      const error = isNumber(found.stderr) ? found.stderr : null, top = isNumber(how.high) ? how.high : Math.max(...all.map((s) => Math.abs(s.value) + (isNumber(s.stderr) ? s.stderr : 0)), 1e-12);
      const at = (v) => Math.max(0, Math.min(100, (100 * v) / top)).toFixed(1);
      const bar = `<i class="ev-bar-line" aria-hidden="true"><b style="width:${at(Math.abs(value))}%"></b>${error ? `<u style="left:${at(Math.abs(value) - error)}%;right:${(100 - at(Math.abs(value) + error)).toFixed(1)}%"></u>` : ""}</i>`;
      const told = t("eval.cell", { value: studio.num(value, 6), error: error == null ? "–" : studio.num(error, 3), n: found.n ?? "–" });
      return `<td class="ev-cell${best ? " ev-best" : ""}" title="${esc(told)}"><span class="ev-value">${esc(studio.evalNumber(value, how))}${error == null ? "" : `<small> ± ${esc(plain(error, how))}</small>`}${best ? `<span class="st-visually-hidden">${esc(t("checkpoints.best"))}</span>` : ""}</span>${bar}${this.change(model, line)}</td>`;
    }

    /** What the pairs say of this cell, and the answers behind it. */
    change(model, line) {
      const one = this.pairs.get(`${model}/${line.task}/${line.metric}`);
      if (!one || !isNumber(one.delta)) return "";
      const tone = one.sure ? (one.worse ? "ev-worse" : "ev-better") : "ev-even", range = isNumber(one.low) ? ` <small>(${esc(signed(one.low, line.how))} … ${esc(signed(one.high, line.how))})</small>` : "";
      const told = t("eval.change.about", { base: this.results.models[this.base].label, n: one.n, low: isNumber(one.low) ? signed(one.low, line.how) : "–", high: isNumber(one.high) ? signed(one.high, line.how) : "–", p: isNumber(one.p) ? studio.num(one.p, 2) : "–" });
      const flips = (where, n) => (n && this.results.answers ? `<button type="button" class="ev-flip ev-flip-${where}" data-task="${esc(line.task)}" data-model="${model}" data-where="${where}" aria-label="${esc(t(`eval.flips.${where}`, { n }))}" title="${esc(t(`eval.flips.${where}`, { n }))}">${where === "better" ? "▲" : "▼"} ${n}</button>` : "");
      return `<span class="ev-change ${tone}" title="${esc(told)}"><span>${esc(signed(one.delta, line.how))}${range}<span class="st-visually-hidden"> ${esc(t(`eval.change.${tone.slice(3)}`))}</span></span>${flips("better", one.better_answers)}${flips("worse", one.worse_answers)}</span>`;
    }

    /** How many tasks got better or worse for sure: the one sentence that a person came for. */
    verdict() {
      const { models } = this.results;
      if (models.length !== 2 || !this.pairs.size) return "";
      const other = 1 - this.base, mains = [...this.pairs.values()].filter((one) => one.metric === this.results.tasks[one.task]?.main && isNumber(one.delta));
      if (!mains.length) return "";
      const sure = mains.filter((one) => one.sure), worse = sure.filter((one) => one.worse), better = sure.filter((one) => !one.worse), title = (one) => studio.evalTask(one.task, this.results.tasks[one.task]);
      const part = (key, list) => (list.length ? `<span class="ev-verdict-part ev-${key}"><b>${esc(t(`eval.verdict.${key}`, { n: list.length }))}</b> ${esc(list.map(title).slice(0, 6).join(", "))}${list.length > 6 ? " …" : ""}</span>` : "");
      return `<p class="ev-verdict" role="status"><span>${esc(t("eval.verdict", { name: models[other].label, base: models[this.base].label }))}</span>${part("worse", worse)}${part("better", better)}${part("even", mains.filter((one) => !one.sure && isNumber(one.low)))}</p>`;
    }

    render() {
      const { models, tasks } = this.results, lines = this.lines(), more = Object.values(tasks).some((task) => Object.keys(task.metrics || {}).length > 1);
      const across = !(models.length > WIDE && lines.length < models.length);
      const arrow = (how) => `<span class="ev-way" title="${esc(t(how.higher_is_better === false ? "eval.less" : "eval.more"))}" aria-label="${esc(t(how.higher_is_better === false ? "eval.less" : "eval.more"))}">${how.higher_is_better === false ? "↓" : "↑"}</span>`;
      const lineName = (line, first) => `${first ? `<b title="${esc(line.about.title || line.task)}">${esc(studio.evalTask(line.task, line.about))}</b>` : ""}<small>${esc(line.metric)} ${arrow(line.how)}</small>`;
      const modelName = (m, i) => `<b title="${esc(m.ref)}">${esc(m.label)}</b>${i === this.base && models.length > 1 ? `<small>${esc(t("eval.base"))}</small>` : ""}`;
      const table = across
        ? `<thead><tr><th scope="col">${esc(t("eval.task"))}</th>${models.map((m, i) => `<th scope="col">${modelName(m, i)}</th>`).join("")}</tr></thead><tbody>${lines.map((line, at) => `<tr><th scope="row">${lineName(line, at === 0 || lines[at - 1].task !== line.task)}</th>${models.map((_, i) => this.cell(i, line)).join("")}</tr>`).join("")}</tbody>`
        : `<thead><tr><th scope="col">${esc(t("eval.model"))}</th>${lines.map((line) => `<th scope="col">${lineName(line, true)}</th>`).join("")}</tr></thead><tbody>${models.map((m, i) => `<tr><th scope="row">${modelName(m, i)}</th>${lines.map((line) => this.cell(i, line)).join("")}</tr>`).join("")}</tbody>`;
      const which = more ? `<div class="ev-switch" role="group" aria-label="${esc(t("eval.metrics"))}">${["main", "all"].map((k) => `<button type="button" data-metrics="${k}" aria-pressed="${(k === "all") === this.all}">${esc(t(`eval.metrics.${k}`))}</button>`).join("")}</div>` : "";
      const base = models.length > 1 && this.results.answers ? `<label>${esc(t("eval.compare_with"))} <select data-base>${models.map((m, i) => `<option value="${i}" ${i === this.base ? "selected" : ""}>${esc(m.label)}</option>`).join("")}</select></label>` : "";
      const html = `<header class="ev-part-head"><h2>${esc(t("eval.scores"))}</h2>${this.results.whole ? "" : `<span class="st-tag">${esc(t("eval.partial"))}</span>`}<div class="ev-tools">${base}${which}</div></header>${this.verdict()}
        <div class="ev-scroll" tabindex="0" role="region" aria-label="${esc(t("eval.scores"))}"><table class="st-table ev-table${across ? "" : " ev-down"}">${table}</table></div><p class="st-muted ev-legend">${esc(t(models.length > 1 && this.pairs.size ? "eval.legend.pairs" : "eval.legend"))}</p>`;
      if (html === this.shown && this.place.firstElementChild) return;
      const held = this.place.contains(document.activeElement) && (document.activeElement.dataset.metrics ? `[data-metrics="${document.activeElement.dataset.metrics}"]` : document.activeElement.matches("[data-base]") ? "[data-base]" : "");
      this.place.innerHTML = this.shown = html;
      if (held) this.place.querySelector(held)?.focus();
    }
  }
  studio.EvalScores = Scores;
})();
