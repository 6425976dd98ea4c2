/* A sample of preferences: what is asked once, its answers side by side, what the model learns to say and what to leave. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  /** @param sides as studio/aligners/preview.py gives them: [{good, tokens, length, kept, trained}]. */
  studio.sides = (sides, shape) => {
    if (shape === "prompts") // nothing of the data is imitated: the model's own answers are scored
      return `<p class="st-muted">${esc(t("sides.asked.help"))}</p>${studio.tokens(sides[0].tokens.map((token) => ({ ...token, trained: false })), t("sides.asked"))}`;
    const first = sides[0].tokens, begin = Math.max(0, first.findIndex((token) => token.trained));
    const asked = sides.length > 1 ? first.slice(0, begin) : [];
    const words = (side) => t(side.good == null ? "sides.imitate" : sides.length > 1 ? (side.good ? "sides.better" : "sides.worse") : side.good ? "sides.good" : "sides.bad");
    const column = (side) => `<section class="st-side${side.good == null ? "" : side.good ? " st-liked" : " st-disliked"}">
      <h3>${side.good == null ? "" : `<i aria-hidden="true">${side.good ? "✓" : "✕"}</i>`}${esc(words(side))}<small>${esc(t("sides.tokens", { n: side.trained }))}</small></h3>
      ${studio.tokens(side.tokens.slice(asked.length), words(side))}</section>`;
    const differ = sides.some((side) => side.tokens.some((token) => token.differs));
    return `${asked.length ? `<h3>${esc(t("sides.asked"))}</h3>${studio.tokens(asked, t("sides.asked"))}` : ""}
      <div class="st-sides">${sides.map(column).join("")}</div>${differ ? `<p class="st-muted st-sides-key">${esc(t("sides.differs"))}</p>` : ""}`;
  };
})();
