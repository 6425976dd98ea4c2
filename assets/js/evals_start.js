/* Where an evaluation begins: the methods in plain words, ready settings, and what was evaluated last. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const svg = (path) => `<svg width="17" height="17" viewBox="0 0 18 18" fill="none" stroke="currentColor" stroke-width="1.4" stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">${path}</svg>`;
  /* What a person wants to know -> the methods that tell. One that is not named here stands under "other". */
  const GROUPS = [
    ["skills", ["harness", "compare"], '<path d="M2.5 15.5v-5h3v5zM7.5 15.5v-9h3v9zM12.5 15.5v-13h3v13z"/>'],
    ["judged", ["judge", "agreement"], '<path d="M9 2.5v13M4.5 15.5h9M3 5h12M3 5l-1.5 5h3zM15 5l-1.5 5h3z"/>'],
    ["weak", ["safety", "robustness", "hallucination", "prompt_following"], '<path d="M9 2l6 2.3v4.2c0 3.7-2.5 6.2-6 7.5-3.5-1.3-6-3.8-6-7.5V4.3zM9 6v3.5M9 12v.1"/>'],
    ["cost", ["speed", "budget"], '<path d="M3 13.5a6.8 6.8 0 1 1 12 0M9 11l3.200-4"/>'],
    ["sense", ["analyse", "report"], '<path d="M3 3.5h12M3 7.5h12M3 11.5h7M3 15.5h5M13 10.5v5M10.5 13h5"/>'],
  ];
  const DRAFT = "studio-eval-draft", SECRET = /key|token|secret|password/i, RUNS = 8;

  /** What is typed into a start dialog, for a reload: in this browser tab only, without anything secret. */
  const draft = {
    get(method) { try { const held = JSON.parse(sessionStorage.getItem(DRAFT)); return held?.method === method ? held.values : null; } catch { return null; } },
    put(method, values) {
      const kept = Object.fromEntries(Object.entries(values).filter(([name]) => !SECRET.test(name) || ["max_gen_toks", "max_new_tokens", "max_tokens"].includes(name)));
      try { sessionStorage.setItem(DRAFT, JSON.stringify({ method, values: kept })); } catch { /* full or forbidden: a reload then begins anew */ }
    },
    drop() { sessionStorage.removeItem(DRAFT); },
  };

  class Start {
    constructor(place) {
      Object.assign(this, { place, found: null, runs: null });
      place.innerHTML = `<div class="ev-start"><div class="ev-start-main"><header class="ev-head"><h1>${esc(t("eval.start.title"))}</h1><p class="st-muted">${esc(t("eval.start.lead"))}</p></header><div data-methods><div class="st-working">${esc(t("eval.start.working"))}</div></div></div>
        <aside class="ev-start-side"><section data-runs hidden><h2>${esc(t("eval.recent"))}</h2><div data-recent></div></section><section data-presets hidden><h2>${esc(t("eval.presets"))}</h2><ul class="ev-presets"></ul></section></aside></div>`;
      this.$ = (selector) => place.querySelector(selector);
      place.addEventListener("click", (event) => {
        const { method, preset, run, view } = event.target.closest("button")?.dataset || {};
        if (method) this.open({ method });
        else if (preset) this.open(this.found.presets.find((p) => p.name === preset).values);
        else if (run) studio.evalOpen(run);
        else if (view) studio.evalGo(view);
      });
      studio.poll(place, 3000, () => this.recent());
      for (const name of ["studio:runs", "studio:runs-ended"]) window.addEventListener(name, () => place.getClientRects().length && this.recent());
    }

    /** What there is; asked again whenever the view is shown, because models and methods come and go. */
    async load() {
      const found = await studio.call("eval_start");
      this.found = found;
      this.methods();
      const list = this.$(".ev-presets"), named = found.presets.filter((p) => found.methods.some((m) => m.name === p.values.method));
      this.$("[data-presets]").hidden = !named.length;
      list.innerHTML = named.map((p) => `<li><button type="button" data-preset="${esc(p.name)}"><b>${esc(p.title)}</b><span>${esc(p.for_whom)}</span></button></li>`).join("");
      return found;
    }

    methods() {
      const all = this.found.methods, grouped = new Set(GROUPS.flatMap(([, names]) => names));
      const other = all.filter((m) => !grouped.has(m.name));
      const card = (m) => `<article class="ev-card"><button type="button" data-method="${esc(m.name)}"><b>${esc(m.title)}</b><span>${esc(m.summary)}</span></button>${m.paper ? studio.dataParts.paperLink(m.paper) : ""}</article>`;
      const section = (name, list, path) => (list.length ? `<section class="ev-group"><header>${svg(path)}<div><h2>${esc(t(`eval.group.${name}`))}</h2><p>${esc(t(`eval.group.${name}.about`))}</p></div></header><div class="ev-cards">${list.map(card).join("")}</div></section>` : "");
      this.$("[data-methods]").innerHTML = GROUPS.map(([name, names, path]) => section(name, names.map((one) => all.find((m) => m.name === one)).filter(Boolean), path)).join("")
        + section("other", other, '<path d="M4 9h.1M9 9h.1M14 9h.1"/>');
    }

    async recent() {
      const runs = await studio.call("eval_runs");
      const html = runs.length ? `<ul class="ev-recent">${runs.slice(0, RUNS).map((run) => `<li><button type="button" data-run="${esc(run.id)}"><b>${esc(run.label)}</b><span>${studio.active(run.state) || run.state !== "succeeded" ? studio.pill(run.state) : ""}${esc([studio.evalCount("model", run.models.length), run.tasks.slice(0, 3).join(", ") + (run.tasks.length > 3 ? " …" : ""), studio.ago(run.ended || run.created)].filter(Boolean).join(" · "))}</span></button></li>`).join("")}</ul>${runs.length > RUNS ? `<button type="button" class="st-link st-small-link" data-view="results">${esc(t("eval.recent.all", { n: runs.length }))}</button>` : ""}` : "";
      this.$("[data-runs]").hidden = !runs.length;
      if (html !== this.shown) this.$("[data-recent]").innerHTML = this.shown = html;
    }

    /** The dialog of a method. What was typed into it and not sent is there again, unless values are given. */
    async open(values, { title = "", note = "", fresh = false } = {}) {
      const { kind = "eval", method = "harness", schema_version, ...given } = values, named = kind === "eval" ? method : `${kind}/${method}`;
      let found;
      try { found = await this.load(); } catch (error) { return studio.failed(error); }
      const step = (kind === "look" ? found.looks : found.methods).find((m) => m.name === method);
      if (!step) return studio.toast(t("eval.method.unknown", { name: method }), "bad");
      document.querySelector("dialog.ev-dialog")?.close();
      const held = !fresh && !Object.keys(given).length ? draft.get(named) : null;
      studio.evalAddress({ start: named });
      const made = studio.stepDialog({
        step: title ? { ...step, title } : step, values: held || given, context: { models: found.models, datasets: found.datasets }, whole: true, tries: false, action: t("eval.start.go"),
        wrap: (recipe) => ({ kind, method, ...recipe }), edited: (now) => draft.put(named, now),
        run: async (recipe) => {
          const run = await studio.call("submit", { values: recipe });
          draft.drop();
          this.sent = true;
          window.dispatchEvent(new CustomEvent("studio:runs"));
          studio.evalOpen(run.id);
          return run;
        },
      });
      made.classList.add("ev-dialog");
      studio.evalPickers(made.form, made.form.specs, { models: found.models, datasets: found.datasets, method });
      if (!held) draft.put(named, { ...made.form.values() });
      const told = held ? `${esc(t("eval.draft"))} <button type="button" class="st-link">${esc(t("eval.draft.drop"))}</button>` : esc(note);
      if (told) {
        const line = Object.assign(document.createElement("p"), { className: "dt-reads", innerHTML: told });
        made.querySelector(".dt-form").before(line);
        line.querySelector("button")?.addEventListener("click", () => { draft.drop(); this.open({ kind, method }, { fresh: true }); });
      }
      // closing it by hand is a decision; a reload closes nothing and finds the draft
      made.addEventListener("close", () => { if (document.querySelector("dialog.ev-dialog[open]")) return; draft.drop(); if (studio.param("start")) studio.evalAddress({ start: null }); });
      return made;
    }
  }

  let start = null;
  studio.evalView("start", {
    order: 0,
    shown(place, detail) {
      start ??= new Start(place);
      if (detail.values) start.open(detail.values, detail.options);
      else if (detail.start) { const [method, kind] = detail.start.split("/").reverse(); start.open({ kind, method }); }
      else start.load().catch((error) => { if (!start.found) start.$("[data-methods]").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; });
      start.recent().catch(() => {});
    },
  });
  studio.evalStart = (values = {}, options = {}) => studio.evalGo("start", { values, options });
})();
