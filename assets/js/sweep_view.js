/* A sweep while it runs and after: parallel coordinates, a table of its trials, the best one and what to do with it. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  studio.views ??= {};

  const word = (v) => (typeof v === "number" ? studio.num(v) : typeof v === "boolean" ? t(v ? "sweep.on" : "sweep.off") : v === "" || v == null ? "–" : String(v));

  class View {
    constructor(live) {
      Object.assign(this, { live, run: live.run });
      this.place = document.createElement("div");
      this.place.className = "sw-view";
      this.place.innerHTML = `<div class="sw-best" hidden></div><div class="sw-after"></div>
        <div class="st-card"><h2>${esc(t("sweep.plot"))}</h2><p class="st-muted">${esc(t("sweep.plot.help"))}</p><div class="sw-plot" role="img"></div></div>
        <div class="st-card sw-trials"><h2>${esc(t("sweep.trials"))}</h2><div class="sw-table" tabindex="0" aria-label="${esc(t("sweep.trials"))}"></div></div>`;
      live.root.querySelector(".st-run-grid").before(this.place);
      this.$ = (selector) => this.place.querySelector(selector);
      this.$(".sw-table").onclick = (event) => {
        const { open, use } = event.target.closest("[data-open],[data-use]")?.dataset || {};
        if (use) return this.use(use);
        const row = open || event.target.closest("tr[data-run]")?.dataset.run;
        if (row) studio.openRun(row);
      };
      const repaint = () => (this.place.isConnected ? this.plot() : window.removeEventListener("studio:theme", repaint));
      window.addEventListener("studio:theme", repaint);
      studio.poll(this.place, 1500, () => this.look());
    }

    async look() {
      if (this.settled || this.run !== this.live.run) return;
      const over = !studio.active(this.live.state);
      const found = await studio.call("sweep", { run: this.run });
      const seen = JSON.stringify([found, over]); // the end alone is news too: the best one's model is offered then
      this.settled = over && found.trials.every((trial) => !studio.active(trial.state));
      if (seen === this.seen) return;
      Object.assign(this, { seen, found });
      this.table();
      this.plot();
      this.best();
    }

    title() { return { eval_loss: t("live.eval_loss"), loss: t("live.loss") }[this.found.metric] || this.found.metric.replaceAll("_", " "); }

    table() {
      const { axes, trials, best } = this.found, place = this.$(".sw-table");
      if (!trials.length) return void (place.innerHTML = `<div class="st-empty"><b>${esc(t("sweep.none"))}</b><p>${esc(t("sweep.none.hint"))}</p></div>`);
      place.innerHTML = `<table class="st-table"><thead><tr><th scope="col" class="st-num">${esc(t("sweep.trial"))}</th><th scope="col">${esc(t("runs.state"))}</th>${axes.map((axis) => `<th scope="col" class="st-num">${esc(axis.title)}</th>`).join("")}
        <th scope="col" class="st-num">${esc(this.title())}</th><th scope="col">${esc(t("runs.curve"))}</th><th></th></tr></thead><tbody>${trials.map((trial) => `<tr data-run="${esc(trial.run)}"${trial.run === best ? ' class="sw-is-best"' : ""}>
        <td class="st-num">${trial.number}</td><td>${this.state(trial)}</td>${axes.map((axis) => `<td class="st-num">${esc(word(trial.params[axis.field]))}</td>`).join("")}
        <td class="st-num">${esc(studio.num(trial.value))}${trial.run === best ? ` <span class="st-tag">${esc(t("checkpoints.best"))}</span>` : ""}</td><td>${studio.spark(trial.curve.map(([, v]) => v))}</td>
        <td class="st-row-actions"><button type="button" class="st-btn st-small" data-open="${esc(trial.run)}" aria-label="${esc(t("sweep.open_trial", { n: trial.number }))}">${esc(t("action.open"))}</button></td></tr>`).join("")}</tbody></table>`;
    }

    state(trial) {
      if (trial.state === "pruned") return `<span class="st-pill st-is-stopped" title="${esc(trial.reason)}"><i aria-hidden="true"></i>${esc(t("sweep.pruned"))}</span>`;
      const p = trial.state === "running" && trial.progress?.total ? `<small>${Math.round(100 * trial.progress.done / trial.progress.total)} %</small>` : "";
      return `<span title="${esc(trial.reason)}">${studio.pill(trial.state)}</span>${p}`;
    }

    /** One axis of the plot: numbers, on a scale of powers where that suits, or words at equal distances. */
    dimension(label, values, log) {
      if (values.every((v) => typeof v === "number")) {
        const numbers = values.map((v) => (log ? Math.log10(v) : v)), ticks = [...new Set(values)].sort((a, b) => a - b);
        const low = Math.min(...numbers), high = Math.max(...numbers), pad = (high - low || Math.abs(high) || 1) * 0.04;
        const few = ticks.length <= 8 ? ticks : [0, 0.25, 0.5, 0.75, 1].map((share) => (log ? 10 ** (low + share * (high - low)) : low + share * (high - low)));
        return { label, values: numbers, range: [low - pad, high + pad], tickvals: few.map((v) => (log ? Math.log10(v) : v)), ticktext: few.map((v) => studio.num(v, 3)) };
      }
      const words = [...new Set(values.map(word))];
      return { label, values: values.map((v) => words.indexOf(word(v))), range: [-0.2, Math.max(words.length - 0.8, 0.8)], tickvals: words.map((_, i) => i), ticktext: words };
    }

    plot() {
      const { axes, trials, direction } = this.found, place = this.$(".sw-plot"), shown = trials.filter((trial) => typeof trial.value === "number");
      if (!shown.length) return void (place.dataset.empty = "", place.textContent = t("sweep.plot.empty"));
      if ("empty" in place.dataset) { place.textContent = ""; delete place.dataset.empty; }
      const values = shown.map((trial) => trial.value), ink = studio.token("--st-muted");
      place.setAttribute("aria-label", t("sweep.plot.label", { n: shown.length, best: studio.num((direction === "maximize" ? Math.max : Math.min)(...values)) }));
      const trace = {
        type: "parcoords", labelfont: { size: 12, color: studio.token("--st-ink") }, tickfont: { size: 10.5, color: ink }, rangefont: { size: 1, color: "rgba(0,0,0,0)" }, labelangle: axes.length > 3 ? -12 : 0,
        line: { color: values, colorscale: [[0, studio.token("--st-accent")], [1, studio.token("--st-faint")]], reversescale: direction === "maximize", cmin: Math.min(...values), cmax: Math.max(...values) + 1e-12 },
        dimensions: [...axes.map((axis) => this.dimension(axis.title, shown.map((trial) => trial.params[axis.field]), axis.log)), this.dimension(this.title(), values, false)],
      };
      const layout = { margin: { l: 56, r: 56, t: axes.length > 3 ? 64 : 40, b: 18 }, height: 300, autosize: true, uirevision: "keep", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink } };
      this.drawn = (this.drawn || Promise.resolve()).then(async () => {
        const P = await studio.plotly();
        if (this.place.isConnected) await P.react(place, [trace], layout, { displayModeBar: false, responsive: true });
      }).catch((error) => { place.textContent = error.message; });
    }

    async best() {
      const { best, trials, axes } = this.found, place = this.$(".sw-best"), trial = trials.find((one) => one.run === best);
      place.hidden = !trial;
      if (!trial) return;
      place.innerHTML = `<div class="st-card st-made"><div><b>${esc(t("sweep.best", { n: trial.number, metric: this.title(), value: studio.num(trial.value) }))}</b>
        <p class="st-muted">${esc(axes.map((axis) => `${axis.title} ${word(trial.params[axis.field])}`).join(" · "))}</p></div>
        <div class="st-actions"><button type="button" class="st-btn st-primary" data-use>${esc(t("live.again"))}</button><button type="button" class="st-btn" data-open>${esc(t("sweep.open_best"))}</button></div></div>`;
      place.querySelector("[data-use]").onclick = () => this.use(best);
      place.querySelector("[data-open]").onclick = () => studio.openRun(best);
      if (this.offered === best || studio.active(this.live.state)) return;
      this.offered = best;
      try { studio.artifactActions(this.$(".sw-after"), await studio.call("run", { run: best })); } catch (error) { console.warn("best:", error); }
    }

    async use(run) {
      try {
        const found = await studio.call("run", { run });
        for (const live of Object.values(studio.lives)) if (live.run === this.run && live.tab !== "runs") live.show(null);
        studio.again({ ...found, recipe: { ...found.recipe, name: "" } });
      } catch (error) { studio.failed(error); }
    }
  }

  /** On the page of a trial: the way to the sweep that it belongs to. */
  studio.views.child = (live) => {
    if (live.root.querySelector(".sw-parent")) return;
    const link = Object.assign(document.createElement("button"), { type: "button", className: "st-btn sw-parent", textContent: t(live.details.tag?.startsWith("trial ") ? "sweep.parent" : "flow.parent") });
    const { parent } = live.details;
    link.onclick = () => live.show(parent);
    live.root.querySelector(".st-back").after(link);
  };

  /** Called by the live view whenever it has read the run: draw once, and look again when the run has moved. */
  studio.views.sweep = (live) => {
    const view = live.sweepView;
    if (view?.run === live.run && view.place.isConnected) { view.settled = false; return void view.look(); }
    live.sweepView = new View(live);
  };
})();
