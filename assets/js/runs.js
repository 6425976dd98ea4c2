/* Runs: all of them in one table; open one, compare several, delete. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  const NUMBERS = ["runs.loss", "runs.eval", "runs.time"];

  class Runs {
    constructor({ element, root }) {
      Object.assign(this, { root, rows: null, chosen: new Set(), unfolded: new Map(), filter: "", kind: "" });
      root.innerHTML = `<div class="st-toolbar"><input type="search" placeholder="${esc(t("runs.filter"))}" aria-label="${esc(t("runs.filter"))}">
        <select aria-label="${esc(t("runs.kind"))}"><option value="">${esc(t("runs.all"))}</option></select><span class="st-push"></span>
        <button type="button" class="st-btn" data-compare disabled>${esc(t("runs.compare"))}</button></div><div class="st-card st-table-card"></div><div class="st-compare" hidden></div>`;
      this.table = root.querySelector(".st-table-card");
      this.compare = root.querySelector(".st-compare");
      root.querySelector("input").oninput = (event) => { this.filter = event.target.value.toLowerCase(); this.draw(); };
      root.querySelector("select").onchange = (event) => { this.kind = event.target.value; this.draw(); };
      root.querySelector("[data-compare]").onclick = () => this.showCompare();
      this.table.addEventListener("click", (event) => this.click(event));
      this.table.addEventListener("keydown", (event) => event.key === "Enter" && event.target.matches("tr[data-run]") && studio.openRun(event.target.dataset.run, event.target.dataset.kind));
      this.table.addEventListener("change", (event) => {
        const id = event.target.dataset.pick;
        if (!id) return;
        if (event.target.checked) this.chosen.add(id); else this.chosen.delete(id);
        this.buttons();
      });
      this.tick = studio.poll(element, 3000, () => this.load());
      window.addEventListener("studio:runs", () => this.tick());
      window.addEventListener("studio:tab", (event) => event.detail === "runs" && this.tick());
    }

    async load() {
      const rows = await studio.call("runs", { limit: 500, curves: true, top: true });
      for (const run of this.unfolded.keys()) this.unfolded.set(run, await studio.call("sweep_trials", { run }).catch(() => []));
      this.rows = rows;
      const kinds = [...new Set(rows.map((r) => r.kind))], select = this.root.querySelector("select");
      if (select.options.length !== kinds.length + 1)
        select.innerHTML = `<option value="">${esc(t("runs.all"))}</option>${kinds.map((k) => `<option value="${esc(k)}" ${k === this.kind ? "selected" : ""}>${esc(t(`kind.${k}`))}</option>`).join("")}`;
      this.draw();
    }

    buttons() {
      const button = this.root.querySelector("[data-compare]");
      button.disabled = this.chosen.size < 2;
      button.textContent = this.chosen.size > 1 ? t("runs.compare.n", { n: this.chosen.size }) : t("runs.compare");
    }

    draw() {
      if (!this.rows) return;
      if (!this.rows.length) {
        this.table.innerHTML = `<div class="st-empty"><b>${esc(t("runs.empty"))}</b><p>${esc(t("runs.empty.hint"))}</p><button type="button" class="st-btn st-primary" data-go="finetune">${esc(t("runs.empty.go"))}</button></div>`;
        return;
      }
      const shown = this.rows.filter((r) => (!this.kind || r.kind === this.kind) && (!this.filter || JSON.stringify([r.label, r.id, r.kind, r.method, r.state, r.model, r.dataset]).toLowerCase().includes(this.filter)));
      const columns = ["", "runs.name", "runs.state", "runs.method", "runs.data", "runs.loss", "runs.eval", "runs.time", "runs.curve", ""];
      const html = `<table class="st-table st-runs-table"><thead><tr>${columns.map((c) => `<th scope="col"${NUMBERS.includes(c) ? ' class="st-num"' : ""}>${c ? esc(t(c)) : ""}</th>`).join("")}</tr></thead><tbody>${shown.flatMap((r) => [r, ...(this.unfolded.get(r.id) || [])]).map((r) => this.row(r)).join("")}</tbody></table>${shown.length ? "" : `<div class="st-empty"><p>${esc(t("runs.none_match"))}</p></div>`}`;
      if (html === this.shown) return;
      const focus = document.activeElement?.dataset?.run;
      this.table.innerHTML = this.shown = html;
      if (focus) this.table.querySelector(`tr[data-run="${focus}"]`)?.focus();
    }

    row(r) {
      const time = r.started ? studio.duration((r.ended || Date.now() / 1000) - r.started) : "–";
      const fold = r.children ? `<button type="button" class="sw-fold" data-fold="${esc(r.id)}" aria-expanded="${this.unfolded.has(r.id)}">${esc(t(this.unfolded.has(r.id) ? "runs.children.hide" : "runs.children.show", { n: r.children }))}</button>` : "";
      return `<tr data-run="${esc(r.id)}" data-kind="${esc(r.kind)}" tabindex="0"${r.parent ? ' class="st-child"' : ""}><td><input type="checkbox" data-pick="${esc(r.id)}" ${this.chosen.has(r.id) ? "checked" : ""} aria-label="${esc(t("runs.pick_one", { name: r.label }))}"></td>
        <td class="st-name"><b>${esc(r.label)}</b><small>${esc(studio.ago(r.created))}</small>${fold}</td><td>${studio.pill(r.state)}</td>
        <td>${esc(t(`kind.${r.kind}`))}<small>${esc(studio.method(r))}</small></td><td class="st-name">${esc(r.data || "–")}</td>
        <td class="st-num">${studio.num(r.loss)}</td><td class="st-num">${studio.num(r.eval_loss)}</td><td class="st-num">${esc(time)}</td><td>${studio.spark(r.curve || [])}</td>
        <td><button type="button" class="st-icon" data-delete="${esc(r.id)}" aria-label="${esc(t("runs.delete", { name: r.label }))}" ${studio.active(r.state) && r.state !== "queued" ? "disabled" : ""}>🗑</button></td></tr>`.replace("🗑", '<svg width="14" height="14" viewBox="0 0 16 16" aria-hidden="true"><path d="M3 4.5h10M6.5 4V2.8h3V4m-5 .5.6 8.7h5.8l.6-8.7" fill="none" stroke="currentColor" stroke-width="1.3" stroke-linecap="round"/></svg>');
    }

    async click(event) {
      const target = event.target;
      if (target.closest("[data-go]")) return studio.show("finetune");
      if (target.dataset.pick) return;
      if (target.dataset.fold) {
        if (!this.unfolded.delete(target.dataset.fold)) this.unfolded.set(target.dataset.fold, []);
        return this.load();
      }
      const doomed = target.closest("[data-delete]")?.dataset.delete;
      if (doomed) {
        const row = [...this.rows, ...[...this.unfolded.values()].flat()].find((r) => r.id === doomed);
        const children = row.children ? `<p>${esc(t("runs.delete.children", { n: row.children }))}</p>` : "";
        if (await studio.ask(t("runs.delete.title"), `<p>${esc(t("runs.delete.body", { name: row.label }))}</p>${children}`, t("action.delete"), true))
          try { await studio.call("remove", { run: doomed }); this.chosen.delete(doomed); this.buttons(); window.dispatchEvent(new CustomEvent("studio:runs")); } catch (error) { studio.failed(error); }
        return;
      }
      const { run, kind } = target.closest("tr[data-run]")?.dataset || {};
      if (run) studio.openRun(run, kind);
    }

    async showCompare() {
      const ids = [...this.chosen].slice(0, 6);
      try {
        const [runs, news] = await Promise.all([Promise.all(ids.map((run) => studio.call("run", { run }))), Promise.all(ids.map((run) => studio.call("poll", { run, cursor: 0 })))]);
        const names = [...new Set(runs.flatMap((r) => Object.keys(r.recipe)))].filter((n) => new Set(runs.map((r) => JSON.stringify(r.recipe[n]))).size > 1);
        const show = (v) => (v === undefined ? "–" : typeof v === "object" ? JSON.stringify(v) : v === "" ? "–" : v);
        this.compare.hidden = false;
        this.compare.innerHTML = `<div class="st-run-head"><h1>${esc(t("runs.compare.title"))}</h1><span class="st-push"></span><button type="button" class="st-btn" data-close>${esc(t("action.close"))}</button></div>
          <div class="st-card" data-charts></div><div class="st-card"><h2>${esc(t("runs.compare.diff"))}</h2>${names.length ? `<table class="st-table"><thead><tr><th></th>${runs.map((r) => `<th scope="col">${esc(r.label)}</th>`).join("")}</tr></thead><tbody>${names.map((n) => `<tr><th scope="row">${esc(n)}</th>${runs.map((r) => `<td>${esc(show(r.recipe[n]))}</td>`).join("")}</tr>`).join("")}</tbody></table>` : `<p class="st-muted">${esc(t("runs.compare.same"))}</p>`}</div>`;
        const charts = new studio.Charts(this.compare.querySelector("[data-charts]"), studio.watched(runs.find((r) => r.kind === "align") || runs[0]));
        charts.overlay(runs.map((r, i) => ({ name: r.label, series: news[i].series })));
        this.compare.querySelector("[data-close]").onclick = () => { this.compare.hidden = true; this.compare.innerHTML = ""; };
        this.compare.scrollIntoView({ behavior: "smooth" });
      } catch (error) { studio.failed(error); }
    }
  }
  studio.parts.runs = (context) => new Runs(context);
})();
