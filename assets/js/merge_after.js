/* After a merge: parents and child side by side, the family, and what a search came to. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const COLUMNS = 4; // of the chat
  studio.views ??= {};
  studio.afterMade ??= {};

  /** What a result was made of, and itself, as models to talk to: at most as many as the chat has columns. */
  async function kin(made) {
    const { edges, nodes } = await studio.call("lineage", { id: made.id }), ref = made.ref || `library:${made.id}`;
    const models = new Set(nodes.filter((n) => !["dataset", "deleted", "file"].includes(n.kind)).map((n) => n.ref));
    const parents = [...new Set(edges.filter((e) => e.child === ref && models.has(e.parent)).sort((a, b) => (a.role === "base") - (b.role === "base")).map((e) => e.parent))];
    return [...parents.slice(0, COLUMNS - 1), ref];
  }

  studio.afterMade.merge = ({ button, run, made }) => {
    const each = (act) => async () => { try { await act(await kin(made)); } catch (error) { studio.failed(error); } };
    button("mg.side", each((models) => studio.open("chat", { models })), "st-primary");
    button("mg.tree", () => studio.familyTree(made.ref || `library:${made.id}`));
  };

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
})();
