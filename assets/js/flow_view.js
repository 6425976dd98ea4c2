/* A pipeline while it runs and after: its steps as a drawing of what feeds what, each the way to its own run. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  studio.views ??= {};

  class View {
    constructor(live) {
      Object.assign(this, { live, run: live.run });
      this.place = document.createElement("div");
      this.place.className = "fl-view";
      this.place.innerHTML = `<div class="st-card"><h2>${esc(t("flow.lineage"))}</h2><div class="fl-graph"><svg aria-hidden="true"></svg><div class="fl-columns"></div></div></div><div class="fl-after"></div>`;
      live.root.querySelector(".st-run-grid").before(this.place);
      this.$ = (selector) => this.place.querySelector(selector);
      this.$(".fl-columns").onclick = (event) => {
        const run = event.target.closest("[data-run]")?.dataset.run;
        if (run) studio.openRun(run);
      };
      this.resized = new ResizeObserver(() => this.lines());
      this.resized.observe(this.$(".fl-columns"));
      studio.poll(this.place, 1200, () => this.look());
    }

    async look() {
      if (this.settled || this.run !== this.live.run) return;
      const over = !studio.active(this.live.state);
      const found = await studio.call("flow", { run: this.run }), seen = JSON.stringify(found);
      this.settled = over && found.steps.every((step) => !studio.active(step.state));
      if (seen !== this.seen) {
        Object.assign(this, { seen, steps: found.steps });
        this.draw();
      }
      if (over) this.after();
    }

    /** Columns of nodes: a step behind everything it uses, a source right before the first step that uses it. */
    nodes() {
      const depth = new Map(), columns = [], sources = new Set();
      for (const step of this.steps) depth.set(step.id, Math.max(1, ...step.uses.filter((use) => use.step).map((use) => (depth.get(use.step) ?? 0) + 1)));
      for (const step of this.steps) (columns[depth.get(step.id)] ??= []).push({ step });
      for (const step of [...this.steps].sort((a, b) => depth.get(a.id) - depth.get(b.id)))
        for (const use of step.uses) {
          if (use.step || sources.has(use.ref)) continue;
          sources.add(use.ref);
          (columns[depth.get(step.id) - 1] ??= []).push({ ref: use.ref, label: use.label });
        }
      return columns.filter(Boolean);
    }

    draw() {
      this.$(".fl-columns").innerHTML = this.nodes().map((column) => `<div class="fl-column">${column.map((node) => (node.step ? this.card(node.step) : `<div class="fl-node fl-source" data-node="${esc(node.ref)}"><span>${esc(node.label)}</span></div>`)).join("")}</div>`).join("");
      this.lines();
    }

    card(step) {
      const { progress } = step, share = progress?.total && studio.active(step.state) ? Math.min(1, progress.done / progress.total) : 0;
      const state = step.state === "waiting" ? `<span class="st-pill"><i aria-hidden="true"></i>${esc(t("flow.waiting"))}</span>` : studio.pill(step.state);
      const inner = `<span class="fl-title"><b>${esc(step.id)}</b><small>${esc(t(`kind.${step.kind}`))} · ${esc(step.title)}</small></span>${state}
        ${share ? `<span class="fl-share"><i style="width:${(share * 100).toFixed(1)}%"></i></span>` : ""}
        ${step.result ? `<small class="fl-made">${esc(t("flow.made", { name: step.result.name }))}</small>` : step.reason ? `<small class="fl-made">${esc(step.reason)}</small>` : ""}`;
      return step.run ? `<button type="button" class="fl-node" data-node="step:${esc(step.id)}" data-run="${esc(step.run)}" aria-label="${esc(t("flow.open_step", { name: step.id }))}">${inner}</button>`
        : `<div class="fl-node" data-node="step:${esc(step.id)}">${inner}</div>`;
    }

    lines() {
      if (!this.steps) return;
      const graph = this.$(".fl-graph"), svg = this.$("svg"), at = graph.getBoundingClientRect(), places = {};
      for (const node of graph.querySelectorAll("[data-node]")) {
        const box = node.getBoundingClientRect();
        places[node.dataset.node] = { left: box.left - at.left, right: box.right - at.left, top: box.top - at.top, bottom: box.bottom - at.top, y: (box.top + box.bottom) / 2 - at.top };
      }
      const stacked = getComputedStyle(this.$(".fl-columns")).flexDirection === "column";
      svg.setAttribute("viewBox", `0 0 ${at.width} ${at.height}`);
      svg.innerHTML = stacked ? "" : this.steps.flatMap((step) => step.uses.map((use) => {
        const a = places[use.step ? `step:${use.step}` : use.ref], b = places[`step:${step.id}`];
        if (!a || !b) return "";
        const bend = Math.max(14, (b.left - a.right) / 2);
        return `<path d="M${a.right} ${a.y} C${a.right + bend} ${a.y} ${b.left - bend} ${b.y} ${b.left} ${b.y}"><title>${esc(use.field)}</title></path>`;
      })).join("");
    }

    /** What the last step made, with what can be done with it. */
    async after() {
      const last = [...this.steps].reverse().find((step) => step.result && step.run);
      if (!last || this.offered === last.run) return;
      this.offered = last.run;
      try { studio.artifactActions(this.$(".fl-after"), await studio.call("run", { run: last.run })); } catch (error) { console.warn("pipeline:", error); }
    }
  }

  studio.views.flow = (live) => {
    const view = live.flowView;
    if (view?.run === live.run && view.place.isConnected) { view.settled = false; return void view.look(); }
    live.flowView = new View(live);
  };
})();
