/* One evaluation: its progress while it goes on, then scores, differences and answers. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  studio.evalView("results", {
    order: 10,
    shown(place, { run = place.dataset.run }) {
      place.dataset.run = run || "";
      studio.evalAddress({ run });
      place.innerHTML = `<div class="st-empty"><b>${esc(t("eval.results.none"))}</b><p>${esc(t("eval.results.none.hint"))}</p></div>`;
    },
  });
})();
