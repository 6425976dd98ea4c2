/* What the statistics and the doctor share: a report of one version, made by a run, shown when it is there. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  class Report {
    constructor(method) { this.method = method; }

    mount(root, shared) {
      Object.assign(this, { root, shared });
      root.classList.add("st-dv", `st-dv-${this.method}`);
      root.addEventListener("click", (event) => {
        const act = event.target.closest("[data-report]")?.dataset.report;
        if (act === "run") this.begin();
        if (act === "apply") this.shared.runStep({ kind: "data", method: "edits", dataset: this.ref });
      });
    }

    async show(open) {
      this.visible = true;
      const other = this.ref !== open.ref || this.hash !== open.hash;
      Object.assign(this, { open, ref: open.ref, hash: open.hash });
      if (other) { this.report = undefined; this.root.innerHTML = `<div class="st-working" role="status">${esc(t("dataview.reading"))}</div>`; }
      const known = open.reports?.[this.method];
      if (known === null && !other && !this.report) return this.running || this.empty();
      const ref = this.ref;
      try {
        const found = await this.shared.call("data_report", { ref, method: this.method });
        if (ref !== this.ref) return;
        const same = found && this.report && found.made === this.report.made && !other;
        this.report = found;
        if (this.running) return;
        if (!found) this.empty(); else if (!same || !this.root.querySelector(".st-dv-report")) this.draw(); else this.stale();
      } catch (error) { this.root.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
    }

    hide() { this.visible = false; }

    values() { return {}; }
    form() { return ""; }

    empty() {
      this.root.innerHTML = `<div class="st-card st-dv-start"><h2>${esc(t(`dataview.${this.method}.empty`))}</h2><p>${esc(t(`dataview.${this.method}.lead`))}</p>${this.form()}
        <div class="st-actions"><button type="button" class="st-btn st-primary" data-report="run">${esc(t(`dataview.${this.method}.run`))}</button></div></div>`;
      this.formed?.();
    }

    /** Make the report. The frame shows how the run goes; the page may be left meanwhile. */
    async begin() {
      if (this.running) return;
      const ref = this.ref, values = { kind: "data", method: this.method, dataset: ref, ...this.values() };
      this.running = true;
      this.root.innerHTML = `<div class="st-card st-dv-start"><div class="st-working" role="status">${esc(t(`dataview.${this.method}.working`, { n: studio.dataRow.count(this.open.total ?? Object.values(this.open.rows).reduce((a, b) => a + b, 0)) }))}</div></div>`;
      let run = null;
      try { run = await this.shared.runStep(values); } catch (error) { studio.failed(error); }
      this.running = false;
      if (ref !== this.ref) return;
      const found = await this.shared.call("data_report", { ref, method: this.method }).catch(() => null);
      if (ref !== this.ref) return;
      this.report = found;
      if (!found) return this.empty();
      this.draw();
      if (run?.state === "succeeded") studio.say(t(`dataview.${this.method}.done`));
    }

    /** When it was made, whether edits since are not in it, and the button that makes it again. */
    head(extra = "") {
      const edits = this.open.edits?.count || 0, old = this.report.version_hash && this.report.version_hash !== this.open.hash;
      const note = old ? t("dataview.report.old") : edits ? t("dataview.report.edits", { n: studio.dataRow.count(edits) }) : "";
      return `<div class="st-dv-report-head">${extra}<span class="st-muted">${esc(t("dataview.report.made", { when: studio.ago(this.report.made) }))}</span><span class="st-push"></span>
        <button type="button" class="st-btn st-small" data-report="run">${esc(t(`dataview.${this.method}.again`))}</button></div>
        <p class="st-dv-stale" role="status" ${note ? "" : "hidden"}><span>${esc(note)}</span> ${edits && !old ? `<button type="button" class="st-btn st-small" data-report="apply">${esc(t("dataview.apply"))}</button>` : ""}</p>`;
    }

    stale() {
      const head = this.root.querySelector(".st-dv-report-top");
      if (head) head.innerHTML = this.head(this.tiles?.() || "");
    }

    /** Look at rows: opens the table on a query. */
    rows(wanted) { studio.dataViews.rows.want(wanted); this.shared.view("rows"); }
  }
  studio.DataReport = Report;
})();
