/* All models of the workspace: scores, lineage, size and cost in one table that sorts by any column. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const isNumber = (v) => typeof v === "number" && isFinite(v);
  const count = (n) => (!n ? "–" : n >= 1e9 ? `${+(n / 1e9).toPrecision(3)}B` : n >= 1e6 ? `${+(n / 1e6).toPrecision(3)}M` : n >= 1e3 ? `${+(n / 1e3).toPrecision(3)}k` : String(n));

  class Board {
    constructor(place) {
      Object.assign(this, { place, found: null, filter: "", asked: true, sort: "", down: true, chosen: new Set() });
      place.innerHTML = `<div class="is is-board"><header class="ev-part-head"><div class="is-head"><h1>${esc(t("eval.view.leaderboard"))}</h1><p class="st-muted">${esc(t("is.board.lead"))}</p></div>
          <div class="ev-tools"><label class="st-check"><input type="checkbox" data-asked checked> ${esc(t("is.board.asked"))}</label><input type="search" data-find placeholder="${esc(t("is.board.find"))}" aria-label="${esc(t("is.board.find"))}"></div></header>
        <div class="is-bar" role="region" aria-label="${esc(t("is.board.chosen", { n: "" }))}" hidden></div><div data-table></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      this.$("[data-find]").oninput = (event) => { this.filter = event.target.value.toLowerCase(); this.draw(); };
      this.$("[data-asked]").onchange = (event) => { this.asked = event.target.checked; this.draw(); };
      place.addEventListener("click", (event) => this.click(event));
      studio.poll(place, 3000, () => this.found || this.load());  // a server that was busy at first is asked again
      place.addEventListener("change", (event) => { const ref = event.target.dataset.choose; if (ref) { this.chosen[event.target.checked ? "add" : "delete"](ref); this.bar(); } });
    }

    async load() {
      try {
        const found = await studio.call("leaderboard");
        this.found = found;
        if (!found.rows.some((row) => Object.keys(row.scores).length)) this.asked = this.$("[data-asked]").checked = false;
        this.draw();
      } catch (error) {
        if (!this.found) this.$("[data-table]").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      }
    }

    rows() {
      const { rows, tasks } = this.found, task = tasks.find((one) => one.name === this.sort);
      const shown = rows.filter((row) => (!this.asked || Object.keys(row.scores).length) && (!this.filter || `${row.label} ${row.ref} ${row.method} ${row.line.map((p) => p.label).join(" ")}`.toLowerCase().includes(this.filter)));
      if (!this.sort) return shown;
      const value = (row) => (this.sort === "mean" ? row.mean : this.sort === "size" ? row.parameters : this.sort === "cost" ? row.cost.all_seconds : task ? row.scores[this.sort]?.value : row.label.toLowerCase());
      const way = (this.down ? -1 : 1) * (task && !task.higher_is_better ? -1 : 1);
      return [...shown].sort((a, b) => { const x = value(a), y = value(b); return x == null ? 1 : y == null ? -1 : x < y ? -way : x > y ? way : 0; });
    }

    cell(row, task) {
      const score = row.scores[task.name], how = { low: task.low, high: task.high };
      if (!score) return '<td class="ev-cell"><span class="st-muted">–</span></td>';
      const all = this.found.rows.map((one) => one.scores[task.name]?.value).filter(isNumber), top = task.high ?? Math.max(...all.map(Math.abs), 1e-12), best = task.best != null && score.value === task.best && !score.differs;
      const settings = Object.entries(score.settings).map(([name, v]) => `${name} ${typeof v === "object" ? JSON.stringify(v) : v}`).join(", ");
      const told = [t("is.board.settings", { n: score.n ?? "–", more: settings ? `, ${settings}` : "", run: score.run }), score.times > 1 ? t("is.board.times", { n: score.times }) : "", score.differs ? t("is.board.differs", { what: [score.metric, score.n, settings].filter(Boolean).join(", ") }) : ""].filter(Boolean).join(" · ");
      const error = isNumber(score.stderr) ? `<small> ± ${esc(task.low === 0 && task.high === 1 ? (100 * score.stderr).toFixed(1) : studio.num(score.stderr, 2))}</small>` : "";
      return `<td class="ev-cell${best ? " ev-best" : ""}"><button type="button" class="is-score" data-run="${esc(score.run)}" title="${esc(told)}" aria-label="${esc(t("is.board.open", { value: studio.evalNumber(score.value, how) }))}"><span class="ev-value">${esc(studio.evalNumber(score.value, how))}${error}${score.differs ? '<b class="is-differs" aria-hidden="true">≠</b>' : ""}${best ? `<span class="st-visually-hidden">${esc(t("checkpoints.best"))}</span>` : ""}</span><i class="ev-bar-line"><b style="width:${Math.max(0, Math.min(100, (100 * Math.abs(score.value)) / top)).toFixed(1)}%"></b></i></button></td>`;
    }

    draw() {
      const { found } = this;
      if (!found) return;
      const rows = this.rows(), scored = found.rows.some((row) => Object.keys(row.scores).length), means = found.mean_of.length > 1;
      const head = (name, text, about = "", arrow = "") => `<th scope="col" aria-sort="${this.sort === name ? (this.down ? "descending" : "ascending") : "none"}"><button type="button" class="is-sort" data-sort="${esc(name)}" title="${esc(about || t("is.board.sort", { name: text }))}">${esc(text)}${arrow}${this.sort === name ? `<i aria-hidden="true">${this.down ? "▾" : "▴"}</i>` : ""}</button></th>`;
      const kind = (row) => (studio.known(`is.kind.${row.kind}`) ? t(`is.kind.${row.kind}`) : row.kind);
      const model = (row) => `<th scope="row"><span class="is-model"><input type="checkbox" data-choose="${esc(row.ref)}" ${this.chosen.has(row.ref) ? "checked" : ""} aria-label="${esc(t("is.board.choose", { name: row.label }))}"><span><button type="button" class="st-link" data-tree="${esc(row.ref)}" title="${esc(row.ref)}">${esc(row.label)}</button> <span class="st-tag">${esc(kind(row))}</span>
        ${row.line.length ? `<small class="is-line">${row.line.map((p) => esc(p.label)).join(" → ")} →</small>` : ""}${row.method ? `<small>${esc(studio.methodOf(...row.method.split("/")).title || row.method)}</small>` : ""}</span></span></th>`;
      const cost = (row) => `<td class="is-cost"><span class="ev-value">${row.cost.seconds == null ? "–" : esc(studio.duration(row.cost.seconds))}</span>${row.cost.all_seconds && row.cost.runs > 1 ? `<small>${esc(t("is.board.cost.all", { time: studio.duration(row.cost.all_seconds) }))}</small>` : ""}${row.cost.device ? `<small>${esc(row.cost.device)}</small>` : ""}</td>`;
      this.$("[data-table]").innerHTML = `${scored ? "" : `<div class="st-empty"><b>${esc(t("is.board.none"))}</b><p>${esc(t("is.board.none.hint"))}</p></div>`}<div class="ev-scroll" tabindex="0" role="region" aria-label="${esc(t("eval.view.leaderboard"))}"><table class="st-table ev-table is-table"><thead><tr>${head("label", t("is.board.model"))}${means ? head("mean", t("is.board.mean"), t("is.board.mean.about", { n: found.mean_of.length })) : ""}
        ${found.tasks.map((task) => head(task.name, task.title || task.task, `${task.metric}`, `<small>${esc(task.metric)}${task.higher_is_better ? "" : " ↓"}</small>`)).join("")}${head("size", t("is.board.size"))}${head("cost", t("is.board.cost"), t("is.board.cost.about"))}</tr></thead>
        <tbody>${rows.map((row) => `<tr>${model(row)}${means ? `<td class="ev-cell is-mean"><span class="ev-value">${isNumber(row.mean) ? esc(studio.evalNumber(row.mean, { low: 0, high: 1 })) : "–"}</span></td>` : ""}${found.tasks.map((task) => this.cell(row, task)).join("")}<td class="is-cost"><span class="ev-value">${esc(count(row.parameters))}</span>${row.size ? `<small>${esc(studio.bytes(row.size))}</small>` : ""}</td>${cost(row)}</tr>`).join("")}</tbody></table></div>${scored ? `<p class="st-muted ev-legend">${esc(t("is.board.legend"))}</p>` : ""}`;
      this.bar();
    }

    bar() {
      const place = this.$(".is-bar"), chosen = this.found.rows.filter((row) => this.chosen.has(row.ref)), runs = chosen.filter((row) => row.run);
      place.hidden = !chosen.length;
      const button = (act, key, on = true) => (on ? `<button type="button" class="st-btn st-small" data-act="${act}">${esc(t(key))}</button>` : "");
      place.innerHTML = `<b>${esc(t("is.board.chosen", { n: chosen.length }))}</b>${button("compare", "is.board.compare", chosen.length === 2 && chosen.every((row) => Object.keys(row.scores).length))}${button("ablate", "is.board.ablate", runs.length > 1)}${button("evaluate", "is.board.evaluate", chosen.every((row) => row.kind !== "deleted"))}${button("report", "is.board.report", chosen.some((row) => row.run || Object.keys(row.scores).length))}`;
    }

    /** The newest evaluations that asked a model. */
    asking(row) { return [...new Set(Object.values(row.scores).map((score) => score.run))]; }

    click(event) {
      const { run, sort, tree, act } = event.target.closest("button")?.dataset || {};
      if (run) return studio.evalOpen(run);
      if (tree) return studio.familyTree(tree);
      if (sort) { this.down = this.sort === sort ? !this.down : sort !== "label"; this.sort = sort; const held = event.target.closest("button").dataset.sort; this.draw(); return this.$(`[data-sort="${CSS.escape(held)}"]`)?.focus(); }
      if (!act) return;
      const chosen = this.found.rows.filter((row) => this.chosen.has(row.ref));
      if (act === "evaluate") studio.evalStart({ method: "harness", models: chosen.map((row) => row.ref) });
      if (act === "report") studio.reportRuns([...new Set(chosen.flatMap((row) => [...(row.run ? [row.run] : []), ...this.asking(row)]))]);
      if (act === "ablate") studio.evalGo("compare", { mode: "ablation", runs: [...new Set(chosen.map((row) => row.run).filter(Boolean))].join(",") });
      if (act === "compare") {
        const [a, b] = chosen, both = this.asking(a).find((id) => this.asking(b).includes(id));
        studio.evalGo("compare", { a: `${both || this.asking(a)[0]}/${a.ref}`, b: `${both || this.asking(b)[0]}/${b.ref}` });
      }
    }
  }

  let board = null;
  studio.evalView("leaderboard", { order: 60, shown(place) { board ? board.load() : (board = new Board(place)); } });
})();
