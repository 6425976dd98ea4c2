/* Beside a merge: whether its models fit together, what happens to each tensor, how far they are apart, and the YAML. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t, json = JSON.stringify;
  const VIEWS = ["fit", "tensors", "apart", "yaml"];
  const FACTS = ["architecture", "layers", "hidden", "vocab", "dtype", "size", "chat_template", "license"], MUST = ["architecture", "hidden", "layers"];
  const SHOWN = 300; // tensors in sight at once

  /** Every text in some values that is a model's reference. */
  const refsIn = (values, known) => [...new Set(JSON.stringify(values || {}).match(/"(?:[^"\\]|\\.)*"/g)?.map((text) => JSON.parse(text)) || [])].filter((text) => known.has(text));

  class MergePanel extends studio.Panel {
    constructor(context) {
      super(context, VIEWS);
      window.addEventListener("studio:merging", () => this.take());
    }

    begin() {
      this.empty("fit", "mg.fit.empty", "mg.fit.empty.hint");
      this.empty("tensors", "mg.tensors.empty", "mg.tensors.empty.hint");
      this.empty("apart", "mg.apart.empty", "mg.apart.empty.hint");
    }

    show({ values }) {
      const own = values.config !== undefined; // the methods whose recipe holds a configuration of mergekit
      for (const view of ["tensors", "apart"]) document.getElementById(`${this.tab}-view-${view}`).hidden = !own;
      if (!own && this.view !== "fit") return this.open("fit");
      if (!own) return this.others(values);
      const told = studio.merging;
      if (!told) return this.begin();
      if (told.error) return this.problem(this.view, told.error);
      this[this.view](told.found, told.config);
    }

    /** The models that a recipe of another method names, as the library knows them. */
    async others(values) {
      const key = json(values);
      if (this.key === key) return;
      this.key = key;
      const mine = ++this.ask, { models } = await studio.call("library").catch(() => ({ models: [] }));
      if (mine !== this.ask) return;
      const refs = refsIn(values, new Set(models.map((m) => m.ref))), used = models.filter((m) => refs.includes(m.ref)), method = studio.methodOf(values.kind, values.method);
      this.place.fit.innerHTML = `<h3>${esc(method.title)}</h3><p class="st-muted">${esc(method.summary)}${method.paper ? ` <a href="${esc(method.paper)}" target="_blank" rel="noopener noreferrer">${esc(t("methods.paper"))}</a>` : ""}</p>
        ${used.length ? `<h3>${esc(t("mg.fit.models"))}</h3><table class="st-table mg-facts"><tbody>${used.map((m) => `<tr><th scope="row">${esc(m.label)}</th><td>${esc(t(`item.${m.kind}`))}</td><td>${esc(m.detail)}</td><td class="st-num">${esc(m.size ? studio.bytes(m.size) : "")}</td></tr>`).join("")}</tbody></table>` : `<div class="st-empty"><b>${esc(t("mg.fit.none"))}</b></div>`}`;
    }

    fit(found) {
      this.key = null;
      const { problems = [], models = [] } = found, bad = problems.filter((p) => (p.level || "error") === "error").length;
      const verdict = bad ? `<p class="mg-verdict mg-level-error"><b>${esc(t("mg.fit.bad", { n: bad }))}</b></p>` : problems.some((p) => p.level === "warning") ? `<p class="mg-verdict mg-level-warning"><b>${esc(t("mg.fit.warned"))}</b></p>` : `<p class="mg-verdict mg-level-good"><b>${esc(t("mg.fit.good"))}</b></p>`;
      const line = (p) => `<li class="st-finding st-level-${esc(p.level === "note" ? "info" : p.level || "error")}"><b>${esc(p.message)}</b>${p.hint ? `<span>${esc(p.hint)}</span>` : ""}${p.path ? `<button type="button" class="st-link mg-goto" data-goto="${esc(p.path)}" aria-label="${esc(t("mg.goto.of", { what: p.message }))}">${esc(t("mg.goto"))}</button>` : ""}</li>`;
      this.place.fit.innerHTML = `${verdict}${problems.length ? `<ul class="st-findings">${problems.map(line).join("")}</ul>` : ""}${models.some((m) => m.architecture) ? `<h3>${esc(t("mg.fit.models"))}</h3>${this.table(models)}` : ""}`;
      this.place.fit.onclick = (event) => { const path = event.target.closest("[data-goto]")?.dataset.goto; if (path) studio.mergeEditor?.goto(path); };
    }

    /** Facts as rows, models as columns; a row in which they differ is marked. */
    table(models) {
      const word = (key, v) => (v === null || v === undefined || v === "" ? "–" : key === "size" ? studio.bytes(v) : typeof v === "boolean" ? t(v ? "mg.yes" : "mg.no") : typeof v === "number" ? studio.num(v, 6) : String(v));
      const rows = FACTS.map((key) => {
        const all = models.map((m) => word(key, m[key])), differ = new Set(all).size > 1 && key !== "size", mark = differ ? (MUST.includes(key) ? "bad" : "differ") : "same";
        return `<tr class="mg-row-${mark}"><th scope="row">${esc(t(`mg.fact.${key}`))}</th>${all.map((text) => `<td>${esc(text)}</td>`).join("")}<td class="mg-mark">${models.length > 1 && key !== "size" ? `<span title="${esc(t(`mg.${mark}`))}" aria-label="${esc(t(`mg.${mark}`))}" role="img">${differ ? "≠" : "="}</span>` : ""}</td></tr>`;
      });
      return `<div class="mg-scroll" tabindex="0" role="region" aria-label="${esc(t("mg.fit.models"))}"><table class="st-table mg-facts"><thead><tr><th></th>${models.map((m) => `<th scope="col"><i style="background:var(${studio.mergeEditor?.colour(m.ref) || "--st-accent"})"></i>${esc(m.label)}</th>`).join("")}<th></th></tr></thead><tbody>${rows.join("")}</tbody></table></div>`;
    }

    tensors(found) {
      const { tensors } = found, place = this.place.tensors;
      if (!tensors?.list?.length) return this.empty("tensors", "mg.tensors.empty", "mg.tensors.empty.hint");
      const actions = ["merged", "copied", "dropped"].filter((name) => tensors[name]), all = actions.reduce((n, name) => n + tensors[name], 0);
      if (!place.querySelector(".mg-tensor-list")) {
        place.innerHTML = `<div class="mg-counts"></div><div class="mg-share" aria-hidden="true"></div><input type="search" class="mg-filter" placeholder="${esc(t("mg.tensors.filter"))}" aria-label="${esc(t("mg.tensors.filter"))}"><div class="mg-tensor-list" tabindex="0" role="region" aria-label="${esc(t("panel.tensors"))}"></div>`;
        place.querySelector("input").oninput = () => this.listed();
        place.querySelector(".mg-counts").onclick = (event) => { const { act } = event.target.closest("[data-act]")?.dataset || {}; if (act) { this.only = this.only === act ? null : act; this.tensors(studio.merging.found); } };
      }
      place.querySelector(".mg-counts").innerHTML = actions.map((name) => `<button type="button" data-act="${name}" aria-pressed="${this.only === name}"><i class="mg-act-${name}"></i><b>${studio.num(tensors[name], 6)}</b> ${esc(t(`mg.tensors.${name}`))}</button>`).join("");
      place.querySelector(".mg-share").innerHTML = actions.map((name) => `<i class="mg-act-${name}" style="flex:${tensors[name] / all}"></i>`).join("");
      this.listed();
    }

    listed() {
      const place = this.place.tensors, text = place.querySelector("input").value.toLowerCase(), { list } = studio.merging.found.tensors;
      const shown = list.filter((one) => (!this.only || one.action === this.only) && one.name.toLowerCase().includes(text));
      place.querySelector(".mg-tensor-list").innerHTML = `<ul>${shown.slice(0, SHOWN).map((one) => `<li><i class="mg-act-${esc(one.action)}" title="${esc(t(`mg.tensors.${one.action}`))}"></i><code>${esc(one.name)}</code><small>${esc(one.model ? t("mg.tensors.from", { action: t(`mg.tensors.${one.action}`), model: studio.mergeEditor?.label(one.model) ?? one.model }) : t(`mg.tensors.${one.action}`))}</small></li>`).join("")}</ul>${shown.length > SHOWN ? `<p class="st-muted">${esc(t("mg.tensors.rest", { n: shown.length - SHOWN }))}</p>` : shown.length ? "" : `<p class="st-muted">${esc(t("mg.tensors.none"))}</p>`}`;
    }

    /** Similarity and conflicts by layer: on a button, because every weight is read for them. */
    apart(found, config) {
      const models = (found.models || []).map((m) => m.ref), key = json([models, config.base_model]), place = this.place.apart;
      if (models.length < 2) return this.empty("apart", "mg.apart.empty", "mg.apart.empty.hint");
      if (this.looked?.key === key) { if (!place.querySelector(".mg-maps") && !this.looking) this.maps(this.looked.found); return; }
      if (this.looking === key) return;
      place.innerHTML = `<div class="mg-ask"><p class="st-muted">${esc(t("mg.apart.lead"))}</p><button type="button" class="st-btn st-primary" data-look>${esc(t("mg.apart.go"))}</button></div>`;
      place.querySelector("[data-look]").onclick = () => this.look(key, config);
    }

    async look(key, config) {
      const place = this.place.apart, began = Date.now();
      this.looking = key;
      place.innerHTML = `<div class="st-working" role="status"></div>`;
      const tick = () => { const line = place.querySelector(".st-working"); if (line) line.textContent = t("mg.apart.working", { time: studio.duration((Date.now() - began) / 1000) }); };
      tick();
      const timer = setInterval(tick, 1000);
      try {
        this.looked = { key, found: await studio.call("merge_look", { config }) };
        this.looking = null;
        this.maps(this.looked.found);
        studio.say(t("mg.apart.done"));
      } catch (error) {
        this.looking = null;
        this.problem("apart", error);
        place.querySelector("[data-retry]").onclick = () => this.look(key, config);
      } finally { clearInterval(timer); }
    }

    maps({ layers, similarity = [], conflict = [], sampled = 1 }) {
      const place = this.place.apart;
      const told = (rows, percent) => rows.map(([pair, values]) => { const seen = values.filter((v) => typeof v === "number"), mean = seen.reduce((a, b) => a + b, 0) / (seen.length || 1); return `<li>${esc(t("mg.apart.mean", { pair, value: percent ? `${(100 * mean).toFixed(1)} %` : studio.num(mean, 4) }))}</li>`; }).join("");
      const part = (name, rows, percent) => (rows.length ? `<section><h3>${esc(t(`mg.${name}`))}</h3><p class="st-muted">${esc(t(`mg.${name}.about`))}</p><div class="mg-heat" data-heat="${name}" role="img" aria-label="${esc(t(`mg.${name}`))}"></div><ol class="mg-means">${told(rows, percent)}</ol></section>` : "");
      place.innerHTML = `<div class="mg-maps">${part("similarity", similarity, false)}${part("conflict", conflict, true)}${sampled < 1 ? `<p class="st-note">${esc(t("mg.apart.sampled", { share: `${(100 * sampled).toPrecision(2)} %` }))}</p>` : ""}</div>`;
      this.paint = () => { if (!place.isConnected) return; if (similarity.length) this.heat("similarity", layers, similarity, false); if (conflict.length) this.heat("conflict", layers, conflict, true); };
      this.repaint ??= (window.addEventListener("studio:theme", () => this.paint?.()), true);
      this.paint();
    }

    async heat(name, layers, rows, conflict) {
      const place = this.place.apart.querySelector(`[data-heat=${name}]`), ink = studio.token("--st-muted"), values = rows.flatMap(([, v]) => v).filter((v) => typeof v === "number");
      const step = Math.ceil(layers.length / (place.clientWidth / (place.clientWidth < 460 ? 26 : 64))), high = 1, low = conflict ? 0 : Math.min(...values, 0.9), narrow = place.clientWidth < 460, few = place.clientWidth / layers.length > (narrow ? 60 : 70);
      const scale = conflict ? [[0, studio.token("--st-sunken")], [1, studio.token("--st-bad")]] : [[0, studio.token("--st-eval")], [1, studio.token("--st-accent-soft")]];
      const labels = rows.map(([pair]) => pair), short = (text, i) => (narrow ? String(i + 1) : text.length > 26 ? `${text.slice(0, 25)}…` : text);
      const trace = { type: "heatmap", z: rows.map(([, v]) => v), x: layers, y: labels.map((_, i) => i), customdata: rows.map(([pair, v]) => v.map(() => pair)), colorscale: scale, zmin: low, zmax: high, xgap: 1, ygap: 2, hoverongaps: false, showscale: rows.length > 2, ...(few ? { texttemplate: conflict ? "%{z:.0%}" : "%{z:.4f}", textfont: { size: 10.5 } } : {}),
        hovertemplate: `%{customdata}<br>%{x}: <b>%{z:${conflict ? ".1%" : ".5f"}}</b><extra></extra>`, colorbar: { thickness: 9, outlinewidth: 0, tickfont: { size: 10, color: ink }, tickformat: conflict ? ".0%" : ".3~f", nticks: 4, len: 1 } };
      const layout = { height: 44 + 26 * rows.length, margin: { l: 8, r: 6, t: 4, b: 34 }, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { family: studio.token("--st-font"), size: 11, color: ink },
        xaxis: { type: "category", tickmode: "array", tickvals: layers.filter((_, i) => i % step === 0 || i === layers.length - 1), ticktext: layers.filter((_, i) => i % step === 0 || i === layers.length - 1).map((name) => (narrow ? name.match(/\d+$/)?.[0] ?? "…" : name)), tickfont: { size: 10, color: ink }, fixedrange: true, automargin: true, ticks: "", showgrid: false, zeroline: false }, yaxis: { tickmode: "array", tickvals: labels.map((_, i) => i), ticktext: labels.map(short), autorange: "reversed", automargin: true, fixedrange: true, ticks: "", showgrid: false, zeroline: false, tickfont: { size: 10.5, color: ink } } };
      try { const P = await studio.plotly(); if (place.isConnected) await P.react(place, [trace], layout, { displayModeBar: false, responsive: true }); } catch (error) { place.textContent = error.message; }
    }
  }
  studio.parts.mergepanel = (context) => new MergePanel(context);
})();
