/* The Eval tab: a frame with a nav of views, one shown at a time; which one is in the address (?view=).

   Other scripts add to it when they are read, in any order after this one:
     studio.evalView(name, {order, title, shown(place, detail), hidden(place)})  a view; `title` is a key of its words
                (else "eval.view.NAME"), `place` its own element, which stays; `detail` is what studio.evalGo was given, or {}
     studio.evalPanel("eval/METHOD", (place, {run, results}) => …)  what is special of a finished run, under its scores
     studio.evalStart(values)   the dialog that starts a method, filled in: {method: "harness", tasks: [...], models: [...]}
     studio.evalOpen(run, detail)  one run: its progress while it goes on, then its scores and answers
     studio.evalGo(view, detail)   a view, from anywhere
     studio.evalAddress({name: value})  what the view now shown keeps in the address; names are forgotten on leaving it */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const views = new Map(), panels = new Map(), FIRST = "start";
  let frame = null, waiting = null;  // what was asked for before the tab was there

  class Frame {
    constructor({ root, props, watch }) {
      Object.assign(this, { root, props, view: "", places: new Map(), kept: new Set() });
      root.innerHTML = `<div class="ev"><nav class="st-views ev-nav" role="tablist" aria-label="${esc(t("eval.views"))}"></nav><div class="ev-places"></div></div>`;
      this.nav = root.querySelector(".ev-nav");
      this.nav.onclick = (event) => { const name = event.target.closest("[data-view]")?.dataset.view; if (name) this.go(name); };
      window.addEventListener("studio:tab", (event) => setTimeout(() => (event.detail === "eval" ? this.back() : this.left())));
      watch("value", () => this.wanted(props.value?.wanted));
      frame = studio.lives.eval = this;
      this.draw();
      const { name, detail } = waiting || { name: studio.param("view") || (studio.param("run") ? "results" : FIRST), detail: this.asked() };
      waiting = null;
      this.go(views.has(name) ? name : FIRST, detail);
    }

    /** What the address says besides tab and view. */
    asked() {
      const { tab, view, ...rest } = Object.fromEntries(new URL(location.href).searchParams);
      for (const name of Object.keys(rest)) if (name !== "run") this.kept.add(name);
      return rest;
    }

    draw() {
      const all = [...views].sort(([, a], [, b]) => (a.order ?? 50) - (b.order ?? 50));
      this.nav.innerHTML = all.map(([name, { title }]) => `<button type="button" role="tab" id="eval-tab-${name}" data-view="${name}" aria-controls="eval-view-${name}" aria-selected="${name === this.view}" tabindex="${name === this.view ? 0 : -1}">${esc(t(title || `eval.view.${name}`))}</button>`).join("");
    }

    place(name) {
      if (!this.places.has(name)) {
        const made = Object.assign(document.createElement("section"), { id: `eval-view-${name}`, className: "ev-place", hidden: true });
        made.setAttribute("role", "tabpanel");
        made.setAttribute("aria-labelledby", `eval-tab-${name}`);
        this.root.querySelector(".ev-places").append(made);
        this.places.set(name, made);
      }
      return this.places.get(name);
    }

    /** Show a view. Without a detail it comes back as it was left. */
    go(name, detail = {}) {
      if (this.view && this.view !== name) {
        views.get(this.view).hidden?.(this.place(this.view));
        this.forget();
      }
      this.view = name;
      const place = this.place(name);
      for (const [other, element] of this.places) element.hidden = other !== name;
      this.draw();
      this.nav.querySelector(`[data-view="${name}"]`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
      if (studio.tabNow() === "eval") studio.setParam("view", name === FIRST ? null : name);
      try { views.get(name).shown?.(place, detail); }
      catch (error) { console.error(error); place.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(t("eval.broken"))}</b><p>${esc(error.message)}</p></div>`; }
    }

    back() { this.go(this.view || FIRST); }
    left() { this.forget(); if (studio.tabNow() !== "chat" && studio.tabNow() !== "data") studio.setParam("view", null); }

    forget() {
      for (const name of this.kept) studio.setParam(name, null);
      if (studio.tabNow() === "eval") studio.setParam("run", null);
    }

    keep(values) {
      if (studio.tabNow() !== "eval") return;
      for (const [name, value] of Object.entries(values)) {
        if (name !== "run") this.kept.add(name);
        studio.setParam(name, value == null || value === "" ? null : String(value));
      }
    }

    /** Another part of the page opened this tab: {run} | {view, …} | {values}. */
    wanted(wanted) {
      if (!wanted || !Object.keys(wanted).length) return;
      if (wanted.run) studio.evalOpen(wanted.run);
      else if (wanted.values) studio.evalStart(wanted.values);
      else if (wanted.view) { const { view, ...detail } = wanted; studio.evalGo(view, detail); }
    }

    // ---- as the live views of other tabs, so that the address and studio.lives.eval.show work here as well
    get run() { return this.view === "results" ? this.place("results").dataset.run || null : null; }
    show(run) { if (run) studio.evalOpen(run); else this.go(FIRST); }
  }

  studio.evalView = (name, view) => { views.set(name, view); frame?.draw(); };
  studio.evalPanel = (method, draw) => panels.set(method, draw);
  studio.evalPanelOf = (kind, method) => panels.get(`${kind}/${method}`);
  studio.evalAddress = (values) => frame?.keep(values);
  studio.evalGo = (name, detail = {}) => {
    if (studio.tabNow() !== "eval") { studio.setParam("tab", "eval"); studio.show("eval"); }
    if (frame) frame.go(views.has(name) ? name : FIRST, detail); else waiting = { name, detail };
  };
  /** "1 model", "3 models". */
  studio.evalCount = (what, n) => t(n === 1 ? `eval.n.${what}.1` : `eval.n.${what}`, { n });
  studio.evalOpen = (run, detail = {}) => studio.evalGo("results", { ...detail, run });

  studio.parts.evals = (context) => new Frame(context);
})();
