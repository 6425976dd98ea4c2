/* The data doctor: what is wrong with a version, how much of it, examples, and the step that mends it. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const LEVELS = ["error", "warning", "info"];
  const count = (n) => studio.dataRow.count(n);
  const percent = (share) => (share > 0 && share < 0.001 ? "< 0.1 %" : `${+(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`);

  class Doctor extends studio.DataReport {
    constructor() { super("doctor"); }

    mount(root, shared) {
      super.mount(root, shared);
      root.addEventListener("click", (event) => {
        const fix = event.target.closest("[data-fix]")?.dataset.fix, change = event.target.closest("[data-change]")?.dataset.change, row = event.target.closest("[data-pos]")?.dataset;
        if (fix !== undefined) this.fix(this.found[Number(fix)], event.target);
        if (change !== undefined) this.shared.startStep(this.step(this.found[Number(change)]));
        if (row) this.rows({ split: row.split || this.open.splits[0], row: Number(row.pos) });
      });
    }

    form() {
      const used = this.report?.recipe?.against?.[0] || "";
      return `<form class="st-dv-form" onsubmit="return false"><label class="st-line">${esc(t("dataview.doctor.against"))}<select name="against"><option value="">${esc(t("dataview.doctor.against.none"))}</option>${used ? `<option value="${esc(used)}" selected>${esc(used)}</option>` : ""}</select></label></form>`;
    }

    /** Sets that training rows must not hold: any dataset but this one. */
    async formed() {
      const pick = this.root.querySelector("[name=against]");
      if (!pick) return;
      try {
        const all = (await studio.call("library")).datasets.filter((d) => d.ref !== this.ref), used = pick.value;
        pick.innerHTML = pick.options[0].outerHTML + all.map((d) => `<option value="${esc(d.ref)}" ${d.ref === used ? "selected" : ""}>${esc(d.label)}</option>`).join("");
      } catch { /* without a list, the dataset is checked by itself */ }
    }

    values() {
      const pick = this.root.querySelector("[name=against]"), ref = pick ? pick.value : this.report?.recipe?.against?.[0];
      return ref ? { against: [ref] } : {};
    }

    step(finding) { return { kind: "data", ...finding.fix, dataset: this.ref }; }

    /** The step runs at once; the frame follows it and opens what it made. */
    async fix(finding, button) {
      button.disabled = true;
      try { await this.shared.runStep(this.step(finding)); } catch (error) { studio.failed(error); }
      button.disabled = false;
    }

    tiles() {
      const by = LEVELS.map((level) => [level, this.found.filter((f) => f.severity === level).length]).filter(([, n]) => n);
      return `<p class="st-dv-verdict">${by.length ? by.map(([level, n]) => `<span class="st-dv-count-level st-dv-level-${level}"><i aria-hidden="true"></i>${esc(t(`dataview.level.${level}`, { n }))}</span>`).join("") : ""}</p>`;
    }

    draw() {
      const r = this.report;
      this.found = [...(r.findings || [])].map((f) => ({ ...f, severity: LEVELS.includes(f.severity) ? f.severity : "info" })).sort((a, b) => LEVELS.indexOf(a.severity) - LEVELS.indexOf(b.severity) || (b.count || 0) - (a.count || 0));
      const groups = LEVELS.map((level) => [level, this.found.map((f, i) => [f, i]).filter(([f]) => f.severity === level)]).filter(([, list]) => list.length);
      this.root.innerHTML = `<div class="st-dv-report"><div class="st-dv-report-top">${this.head(this.tiles())}</div>
        <details class="st-dv-again"><summary>${esc(t("dataview.doctor.other"))}</summary>${this.form()}<button type="button" class="st-btn st-small" data-report="run">${esc(t("dataview.doctor.again"))}</button></details>
        ${this.found.length ? groups.map(([level, list]) => `<section class="st-dv-group" aria-labelledby="st-dv-g-${level}"><h3 id="st-dv-g-${level}">${esc(t(`dataview.group.${level}`))}</h3>${list.map(([f, i]) => this.card(f, i)).join("")}</section>`).join("")
          : `<div class="st-card st-empty st-dv-well"><b>${esc(t("dataview.doctor.well"))}</b><p>${esc(t("dataview.doctor.well.hint", { n: count(r.checked) }))}</p></div>`}</div>`;
      this.formed();
    }

    card(f, i) {
      const examples = (f.examples || []).slice(0, 8).map((e) => (typeof e === "string" ? { text: e } : e));
      const more = examples.length ? `<details class="st-dv-examples" ${f.severity === "error" ? "open" : ""}><summary>${esc(t("dataview.doctor.examples", { n: examples.length }))}</summary><ul>${examples.map((e) => `<li>${e.pos == null ? "" : `<button type="button" class="st-link" data-pos="${esc(e.pos)}" data-split="${esc(e.split || "")}">${esc(t("dataview.side.row", { n: count(e.pos + 1) }))}</button> `}<span>${esc(e.text)}</span></li>`).join("")}</ul></details>` : "";
      return `<article class="st-card st-dv-finding st-dv-level-${f.severity}" data-code="${esc(f.code)}"><div class="st-dv-finding-head"><i class="st-dv-mark" aria-hidden="true"></i><div><h4>${esc(f.message)}</h4>${f.hint ? `<p>${esc(f.hint)}</p>` : ""}</div>
        <div class="st-dv-amount">${f.count == null ? "" : `<b>${count(f.count)}</b>`}${f.share == null ? "" : `<small>${percent(f.share)}</small>`}</div>
        ${f.fix ? `<div class="st-dv-fix"><button type="button" class="st-btn st-small${f.severity === "error" ? " st-primary" : ""}" data-fix="${i}">${esc(f.fix_title || t("dataview.doctor.fix"))}</button><button type="button" class="st-icon" data-change="${i}" title="${esc(t("dataview.doctor.change"))}" aria-label="${esc(t("dataview.doctor.change"))}">⚙</button></div>` : ""}</div>${more}</article>`;
    }
  }
  (studio.dataViews ??= {}).doctor = new Doctor();
})();
