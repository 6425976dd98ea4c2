/* Where an evaluation begins: the methods in plain words, presets, and what was evaluated last. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  studio.evalStart = (values = {}) => studio.evalGo("start", { values });
  studio.evalView("start", {
    order: 0,
    shown(place) { place.innerHTML ||= `<div class="st-empty"><b>${esc(t("eval.start.title"))}</b><p>${esc(t("eval.start.lead"))}</p></div>`; },
  });
})();
