/* After a merge: parents and child side by side, and the same small evaluation on all; the table of such an evaluation. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const COLUMNS = 4; // of the chat
  const SMALL = ["shipped:polite-heldout", "shipped:sums", "shipped:polite"];
  studio.views ??= {};
  studio.afterMade ??= {};

  /** What a result was made of, and itself, as models to talk to: at most as many as the chat has columns. */
  async function kin(made) {
    const { edges, nodes } = await studio.call("lineage", { id: made.id }), ref = made.ref || `library:${made.id}`;
    const models = new Set(nodes.filter((n) => !["dataset", "deleted", "file"].includes(n.kind)).map((n) => n.ref));
    const parents = [...new Set(edges.filter((e) => e.child === ref && models.has(e.parent)).sort((a, b) => (a.role === "base") - (b.role === "base")).map((e) => e.parent))];
    return [...parents.slice(0, COLUMNS - 1), ref];
  }

  studio.compareModels = async (models) => {
    const { datasets } = await studio.call("library"), fits = datasets.filter((d) => d.stage !== "step" && !["preference", "rated"].includes(d.format));
    fits.sort((a, b) => (SMALL.indexOf(b.ref) >= 0) - (SMALL.indexOf(a.ref) >= 0) || SMALL.indexOf(a.ref) - SMALL.indexOf(b.ref));
    const answer = await studio.ask(t("mg.compare"), `<p class="st-muted">${esc(t("mg.compare.help", { n: models.length }))}</p>
      <label class="st-line">${esc(t("mg.compare.data"))}<select name="dataset">${fits.map((d) => `<option value="${esc(d.ref)}">${esc(d.label)}</option>`).join("")}</select></label>
      <label class="st-line">${esc(t("mg.compare.rows"))}<input name="samples" type="number" min="2" max="10000" value="50" required></label>`, t("mg.compare.go"));
    if (!answer) return;
    const run = await studio.job({ kind: "eval", method: "compare", models, dataset: answer.dataset, samples: Number(answer.samples) });
    if (run) studio.openRun(run.id);
  };

  studio.afterMade.merge = ({ button, run, made }) => {
    const each = (act) => async () => { try { await act(await kin(made)); } catch (error) { studio.failed(error); } };
    button("mg.side", each((models) => studio.open("chat", { models })), "st-primary");
    if (made.kind === "model" || made.kind === "adapter") button("mg.compare", each((models) => studio.compareModels(models)));
    button("mg.tree", () => studio.familyTree(made.ref || `library:${made.id}`));
  };

  /* The table of an evaluation: a line a model, a bar for each number, the best of each column marked. */
  const LESS = ["perplexity", "loss", "bits_per_byte"], HIDDEN = ["model", "label", "loss"];
  class Table {
    constructor(live) {
      Object.assign(this, { live, run: live.run });
      this.place = Object.assign(document.createElement("div"), { className: "st-card mg-eval" });
      live.root.querySelector(".st-run-grid").before(this.place);
    }

    draw() {
      const { summary, recipe } = this.live.details, table = summary?.table || [];
      this.place.hidden = !table.length;
      if (!table.length) return;
      const names = Object.keys(table[0]).filter((name) => !HIDDEN.includes(name) && !name.endsWith("_stderr") && table.some((line) => typeof line[name] === "number"));
      const title = (name) => (studio.known(`mg.eval.${name}`) ? t(`mg.eval.${name}`) : name.replaceAll("_", " "));
      const cell = (line, name) => {
        const value = line[name], all = table.map((one) => one[name]).filter((v) => typeof v === "number"), top = Math.max(...all.map(Math.abs), 1e-12), error = line[`${name}_stderr`];
        if (typeof value !== "number") return "<td>–</td>";
        const best = all.length > 1 && value === (LESS.includes(name) ? Math.min : Math.max)(...all) && new Set(all).size > 1 && name !== "tokens_per_second";
        return `<td class="${best ? "mg-best" : ""}"><span class="mg-number">${esc(studio.num(value, 4))}${error != null ? `<small> ± ${esc(studio.num(error, 2))}</small>` : ""}${best ? `<span class="st-visually-hidden">${esc(t("checkpoints.best"))}</span>` : ""}</span><i class="mg-meter"><b style="width:${(100 * Math.abs(value) / top).toFixed(1)}%"></b></i></td>`;
      };
      this.place.innerHTML = `<h2>${esc(t("mg.eval"))}</h2><p class="st-muted">${esc(t("mg.eval.about", { n: summary.samples ?? recipe.samples }))}</p><div class="mg-scroll" tabindex="0" role="region" aria-label="${esc(t("mg.eval"))}"><table class="st-table"><thead><tr><th scope="col">${esc(t("mg.eval.model"))}</th>${names.map((name) => `<th scope="col">${esc(title(name))}${LESS.includes(name) ? ` <small>${esc(t("mg.eval.less"))}</small>` : ""}</th>`).join("")}</tr></thead>
        <tbody>${table.map((line) => `<tr><th scope="row">${esc(line.label || line.model)}</th>${names.map((name) => cell(line, name)).join("")}</tr>`).join("")}</tbody></table></div>
        <div class="st-actions"><button type="button" class="st-btn" data-chat>${esc(t("mg.eval.chat"))}</button></div>`;
      this.place.querySelector("[data-chat]").onclick = () => studio.open("chat", { models: table.slice(0, COLUMNS).map((line) => line.model) });
    }
  }

  /* What a search over the numbers of a merge came to, beside the merge as it was written and each parent alone. */
  studio.views.merge = (live) => {
    const { summary, method, id } = live.details;
    if (method !== "evolve" || !summary?.best || live.root.querySelector(".mg-search")) return;
    const place = Object.assign(document.createElement("div"), { className: "st-card mg-eval mg-search" }), { best, candidates = [], parents = [] } = summary;
    const top = (key) => (summary.direction === "minimize" ? Math.min : Math.max)(...rows.map(([, one]) => one[key]).filter((v) => typeof v === "number"));
    const rows = [[t("mg.search.best", { n: best.number + 1 }), best], ...(candidates[0] && best.number ? [[t("mg.search.written"), candidates[0]]] : []), ...parents.map((one) => [t("mg.search.alone", { name: one.label }), one])];
    place.innerHTML = `<h2>${esc(t("mg.search"))}</h2><p class="st-muted">${esc(t("mg.search.about", { n: candidates.length, metric: t(`mg.search.${summary.metric}`), rows: summary.rows, held: summary.held_out_rows }))}</p>
      <div class="mg-scroll" tabindex="0" role="region" aria-label="${esc(t("mg.search"))}"><table class="st-table"><thead><tr><th></th><th scope="col">${esc(t("mg.search.searched"))}</th><th scope="col">${esc(t("mg.search.held"))}</th></tr></thead>
      <tbody>${rows.map(([name, one]) => `<tr><th scope="row">${esc(name)}</th>${["value", "held_out"].map((key) => `<td class="${one[key] === top(key) ? "mg-best" : ""}"><span class="mg-number">${esc(studio.num(one[key]))}</span></td>`).join("")}</tr>`).join("")}</tbody></table></div>
      <p class="st-muted">${esc(Object.entries(best.params || {}).map(([name, v]) => `${name} ${studio.num(v, 3)}`).join(" · "))}</p><div class="st-actions"><button type="button" class="st-btn">${esc(t("mg.search.open"))}</button></div>`;
    place.querySelector("button").onclick = () => { studio.lives.merge?.show(null); studio.open("merge", { values: { kind: "merge", method: "mergekit", config: summary.config } }); };
    place.dataset.run = id;
    live.root.querySelector(".st-run-grid").before(place);
  };

  studio.views.eval = (live) => {
    if (live.evalView?.run !== live.run || !live.evalView.place.isConnected) live.evalView = new Table(live);
    live.evalView.draw();
  };
})();
