/* Choosing finished runs: a list with boxes in a dialog, and the same list laid over the field `runs` of a form. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const PARTS = ["evaluation", "analysis", "making", "sweep", "report"];
  let asked = null;

  /** Finished runs; asked again after a moment, because runs end meanwhile. */
  const list = () => {
    if (!asked || Date.now() - asked.at > 3000) asked = { at: Date.now(), all: studio.call("insight_runs").catch((error) => { asked = null; throw error; }) };
    return asked.all;
  };

  /** A list of runs with boxes in the order in which they are ticked. */
  class Runs {
    /** @param options {parts: which may be chosen, held: ids, changed(ids), most} */
    constructor(place, options) {
      Object.assign(this, { place, held: [], most: 40, filter: "", parts: PARTS, ...options });
      place.className = "is-runs";
      place.innerHTML = `<div class="is-runs-top"><input type="search" placeholder="${esc(t("is.runs.find"))}" aria-label="${esc(t("is.runs.find"))}" spellcheck="false" autocomplete="off"><span class="st-muted" role="status"></span></div><div class="is-runs-list"><div class="st-working">${esc(t("is.working"))}</div></div>`;
      place.querySelector("input").oninput = (event) => { event.stopPropagation(); this.filter = event.target.value.toLowerCase(); this.draw(); };
      place.addEventListener("change", (event) => {
        const { run } = event.target.dataset;
        if (!run) return;
        event.stopPropagation();
        this.held = event.target.checked ? [...this.held, run].slice(-this.most) : this.held.filter((id) => id !== run);
        this.draw(run);
        this.changed?.(this.held);
      });
      list().then((all) => { this.all = all.filter((run) => this.parts.includes(run.part)); this.draw(); }, (error) => { place.querySelector(".is-runs-list").innerHTML = `<p class="st-finding st-level-error">${esc(error.message)}</p>`; });
    }

    draw(focus = "") {
      if (!this.all) return;
      const fits = this.all.filter((run) => !this.filter || `${run.label} ${run.title} ${run.id} ${run.models.map((m) => m.label).join(" ")} ${run.tasks.join(" ")}`.toLowerCase().includes(this.filter));
      const line = (run) => `<label class="is-run"><input type="checkbox" data-run="${esc(run.id)}" ${this.held.includes(run.id) ? "checked" : ""}><span><b>${esc(run.label)}</b><small>${esc([run.title, run.models.map((m) => m.label).join(", "), run.ended && studio.ago(run.ended)].filter(Boolean).join(" · "))}</small></span>${this.held.includes(run.id) && this.held.length > 1 ? `<i class="is-place">${this.held.indexOf(run.id) + 1}</i>` : ""}</label>`;
      const place = this.place.querySelector(".is-runs-list"), scrolled = place.scrollTop;
      place.innerHTML = PARTS.map((part) => [part, fits.filter((run) => run.part === part)]).filter(([, own]) => own.length).map(([part, own]) => `<section><h4>${esc(t(`is.runs.${part}`))}</h4>${own.map(line).join("")}</section>`).join("") || `<p class="dt-none">${esc(t("is.runs.none"))}</p>`;
      place.scrollTop = scrolled;
      if (focus) place.querySelector(`[data-run="${CSS.escape(focus)}"]`)?.focus();
      this.place.querySelector("[role=status]").textContent = this.held.length ? t("is.runs.chosen", { n: this.held.length }) : "";
    }
  }

  /** Ask for runs in a dialog; resolves to {runs, ...fields of the form} or null. `more`: further html of the form. */
  const ask = async (title, about, action, options, more = "") => {
    let held = options.held || [];
    const answer = studio.ask(title, `${about ? `<p class="st-muted">${esc(about)}</p>` : ""}<div data-runs></div>${more}`, action);
    const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1), submit = dialog.querySelector("[type=submit]"), least = options.least || 1;
    dialog.classList.add("is-dialog");
    new Runs(dialog.querySelector("[data-runs]"), { ...options, held, changed: (ids) => { held = ids; submit.disabled = ids.length < least; } });
    submit.disabled = held.length < least;
    const values = await answer;
    return values && { ...values, runs: held };
  };

  /** Lay the list over the field `runs` of a form; the plain field stays behind and holds the value. */
  const over = (form, spec, parts) => {
    const box = form.box(spec.name), field = box.querySelector("textarea"), place = document.createElement("div");
    box.classList.add("ev-over");
    field.classList.add("ev-behind");
    field.tabIndex = -1;
    field.setAttribute("aria-hidden", "true");
    field.after(place);
    new Runs(place, { parts, held: form.read(spec).map((ref) => ref.replace(/^run:/, "")), changed: (ids) => { field.value = ids.map((id) => `run:${id}`).join("\n"); field.dispatchEvent(new Event("input", { bubbles: true })); form.touched.add(spec.name); } });
  };

  /** A name of a run from other names, without what a name must not have. */
  const named = (key, values) => t(key, values).replace(/[\/\\<>"'\n]/g, " ").slice(0, 80).trim();

  studio.insight = { named, list, ask, over, fresh: () => (asked = null), PARTS };
  for (const name of ["studio:runs", "studio:runs-ended"]) window.addEventListener(name, () => (asked = null));
})();
