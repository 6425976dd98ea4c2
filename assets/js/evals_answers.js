/* The answers behind the scores: one question a line, the models side by side, filtered by task, model, right or wrong, tag and words. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const PAGE = 20, LONG = 420;  // questions of a page, characters of an answer before it is folded
  const WHERE = ["all", "wrong", "right", "flips", "worse", "better"];
  const numbers = (text) => String(text ?? "").split(",").filter((one) => /^\d+$/.test(one)).map(Number);

  class Answers {
    constructor(frame, place) {
      Object.assign(this, { frame, place, asked: 0 });
      place.innerHTML = `<header class="ev-part-head"><h2>${esc(t("eval.answers"))}</h2><div class="ev-tools"><label><span class="st-visually-hidden">${esc(t("eval.task"))}</span><select data-set="task"></select></label>
          <select data-set="tag" aria-label="${esc(t("eval.answers.tag"))}"></select><select data-set="order" aria-label="${esc(t("eval.answers.order"))}"></select>
          <input type="search" data-find placeholder="${esc(t("eval.answers.find"))}" aria-label="${esc(t("eval.answers.find"))}"></div></header>
        <div class="ev-filters"><div class="ev-switch" data-where role="group" aria-label="${esc(t("eval.answers.where"))}"></div><div class="ev-who" role="group" aria-label="${esc(t("eval.answers.models"))}"></div></div>
        <div class="ev-rows" aria-live="polite"></div><footer class="ev-pages"></footer>`;
      this.$ = (selector) => place.querySelector(selector);
      place.addEventListener("change", (event) => { const name = event.target.dataset.set; if (name) this.set({ [name]: event.target.value, at: 0, ...(name === "task" ? { tag: "", where: "all" } : {}) }); });
      let wait;
      this.$("[data-find]").oninput = (event) => { clearTimeout(wait); wait = setTimeout(() => this.set({ find: event.target.value.trim(), at: 0 }), 300); };
      place.addEventListener("click", (event) => this.click(event));
    }

    /** Filters as the address has them; of another run they begin anew. */
    reset({ task = "", who = "", where = "all", tag = "", find = "", order = "", at = 0 } = {}) {
      Object.assign(this, { task, models: numbers(who), where: WHERE.includes(where) ? where : "all", tag, find, order: ["worst", "change"].includes(order) ? order : "", at: Math.max(0, Number(at) || 0), found: null, results: null });
      this.$("[data-find]").value = find;
    }

    address() { return { task: this.task, who: this.models.join(","), where: this.where === "all" ? "" : this.where, tag: this.tag, find: this.find, order: this.order, at: this.at || "" }; }

    draw(results) {
      this.results = results;
      this.place.hidden = !results.answers;
      if (results.answers) this.load();
    }

    set(values) {
      Object.assign(this, values);
      this.frame.address();
      this.load();
    }

    /** Somebody clicked on a score: its answers, in sight. */
    want({ task, models, where }) {
      this.$("[data-find]").value = "";
      this.set({ task, models: models || [], where, tag: "", find: "", at: 0, order: where === "all" ? "" : "change" });
      this.place.scrollIntoView({ behavior: "smooth", block: "start" });
    }

    async load() {
      const mine = ++this.asked, { frame } = this, run = frame.run;
      this.$(".ev-rows").setAttribute("aria-busy", "true");
      try {
        const found = await studio.call("eval_samples", { run, task: this.task, models: this.models, where: this.where, text: this.find, tag: this.tag, offset: this.at, limit: PAGE, order: this.order });
        if (mine !== this.asked || run !== frame.run) return;
        if (!found.rows.length && this.at && found.total) return this.set({ at: 0 });  // the page is past the end now
        this.found = found;
        this.render();
      } catch (error) {
        if (mine !== this.asked) return;
        if (error.field && (this.task || this.models.length || this.where !== "all")) return this.set({ task: "", models: [], where: "all", tag: "", at: 0 });  // an address of another run
        this.$(".ev-rows").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      } finally { if (mine === this.asked) this.$(".ev-rows").removeAttribute("aria-busy"); }
    }

    click(event) {
      const button = event.target.closest("button");
      if (!button) return;
      const { where, who, page, tagged, open } = button.dataset;
      if (where) this.set({ where, at: 0 });
      if (page) { this.set({ at: Number(page) }); this.place.scrollIntoView({ block: "start" }); }
      if (tagged) this.set({ tag: this.tag === tagged ? "" : tagged, at: 0 });
      if (open) { const row = button.closest(".ev-row"), wide = row.classList.toggle("ev-open"); button.setAttribute("aria-expanded", String(wide)); button.textContent = t(wide ? "eval.row.less" : "eval.row.more"); }
      if (who) {
        const all = this.results.models.map((_, i) => i), now = this.models.length ? this.models : all, at = Number(who);
        const next = now.includes(at) ? now.filter((one) => one !== at) : [...now, at].sort((a, b) => a - b);
        if (next.length) this.set({ models: next.length === all.length ? [] : next, at: 0 });
      }
    }

    render() {
      const { found, results } = this, { tasks, models } = results, more = found.models.length > 1;
      const option = (value, text, chosen) => `<option value="${esc(value)}" ${chosen ? "selected" : ""}>${esc(text)}</option>`;
      const fill = (name, html, hidden = false) => { const select = this.$(`[data-set=${name}]`); if (select.dataset.html !== html) { select.innerHTML = html; select.dataset.html = html; } select.hidden = hidden; };
      this.task = found.task;
      const title = (name) => studio.evalTask(name, tasks[name]);
      fill("task", found.asked.map((name) => option(name, title(name), name === found.task)).join(""), found.asked.length < 2);
      const tags = Object.entries(found.tags);
      fill("tag", option("", t("eval.answers.tag.all"), !this.tag) + tags.map(([name, by]) => `<optgroup label="${esc(name)}">${Object.entries(by).map(([value, n]) => option(`${name}=${value}`, `${value} (${n})`, this.tag === `${name}=${value}`)).join("")}</optgroup>`).join(""), !tags.length);
      this.$("[data-set=tag]").value = this.tag;
      fill("order", [["", "asked"], ["worst", "worst"], ...(more ? [["change", "change"]] : [])].map(([value, key]) => option(value, t(`eval.order.${key}`), value === this.order)).join(""));
      this.$("[data-set=order]").value = this.order;
      const shown = WHERE.filter((w) => w === "all" || (["right", "wrong"].includes(w) ? found.binary : more && found.counts[w]) || w === this.where);
      this.$("[data-where]").innerHTML = shown.map((w) => `<button type="button" data-where="${w}" aria-pressed="${w === this.where}">${esc(t(`eval.where.${w}`))} <i>${esc(studio.num(found.counts[w]))}</i></button>`).join("");
      const who = this.$(".ev-who");
      who.hidden = models.length < 2;
      who.innerHTML = models.map((m, i) => `<button type="button" class="ev-model-chip" data-who="${i}" aria-pressed="${found.models.includes(i)}">${esc(m.label)}</button>`).join("");
      const opened = new Set([...this.place.querySelectorAll(".ev-row.ev-open")].map((row) => row.dataset.id));
      this.$(".ev-rows").innerHTML = found.rows.length ? `${this.heads(models)}${found.rows.map((row) => this.row(row)).join("")}` : `<div class="st-empty"><b>${esc(t("eval.answers.none"))}</b><p>${esc(t("eval.answers.none.hint"))}</p></div>`;
      for (const row of this.place.querySelectorAll(".ev-row")) if (opened.has(row.dataset.id)) row.querySelector("[data-open]")?.click();
      this.pages();
    }

    heads(models) {
      const { found } = this;
      return `<div class="ev-heads" style="--n:${found.models.length}" aria-hidden="true"><b>${esc(t("eval.question"))}</b>${found.models.map((i) => `<b>${esc(models[i].label)}</b>`).join("")}</div>`;
    }

    row(row) {
      const { found, results } = this, tags = Object.entries(row.tags || {});
      const right = row.target ? `<p class="ev-target"><span>${esc(t("eval.target"))}</span> ${esc(row.target)}</p>` : "";
      const tagged = tags.length ? `<p class="ev-tags">${tags.map(([name, value]) => `<button type="button" class="st-tag" data-tagged="${esc(`${name}=${value}`)}" title="${esc(name)}">${esc(value)}</button>`).join("")}</p>` : "";
      const cells = found.models.map((number) => this.answer(row, row.answers.find((one) => one.model === number), results.models[number].label)).join("");
      return `<article class="ev-row" style="--n:${found.models.length}" data-id="${esc(row.id)}"><div class="ev-asked"><div class="ev-prompt">${esc(asked(row.prompt))}</div>${right}${tagged}<button type="button" class="st-link st-small-link" data-open="1" aria-expanded="false">${esc(t("eval.row.more"))}</button><div class="ev-whole"><h4>${esc(t("eval.prompt.whole"))} <small>${esc(row.id)}</small></h4><pre>${esc(row.prompt)}</pre></div></div>${cells}</article>`;
    }

    answer(row, one, label) {
      if (!one) return `<div class="ev-answer ev-absent"><span class="st-muted">${esc(t("eval.answer.absent"))}</span></div>`;
      const metric = this.results.tasks[this.found.task]?.metrics?.[this.found.metric], mark = one.right === null ? "" : `<span class="ev-mark ${one.right ? "ev-right" : "ev-wrong"}" aria-label="${esc(t(one.right ? "eval.right" : "eval.wrong"))}">${one.right ? "✓" : "✕"}</span>`;
      const score = one.score == null ? "" : one.right === null ? `<span class="ev-score">${esc(studio.evalNumber(one.score, metric))}</span>` : "";
      return `<div class="ev-answer${one.right === true ? " ev-is-right" : one.right === false ? " ev-is-wrong" : ""}"><div class="ev-answer-head"><small>${esc(label)}</small>${mark}${score}</div><div class="ev-said${one.answer.length > LONG ? " ev-long" : ""}">${one.answer ? esc(one.answer) : `<em>${esc(t("samples.nothing"))}</em>`}</div><div class="ev-whole">${this.whole(one)}</div></div>`;
    }

    /** Everything else that is known of an answer. */
    whole(one) {
      const { options, taken, ...more } = one.more || {}, parts = [];
      const scores = Object.entries(one.scores);
      if (scores.length) parts.push(`<dl class="ev-facts">${scores.map(([name, v]) => `<div><dt>${esc(name)}</dt><dd>${esc(studio.num(v))}</dd></div>`).join("")}</dl>`);
      if (Array.isArray(options) && options.length) {
        const list = options.map((o) => (Array.isArray(o) ? o : [o.text ?? o, o.loglikelihood ?? o.logprob])), values = list.map(([, v]) => v).filter((v) => typeof v === "number"), top = Math.max(...values), sum = values.reduce((a, v) => a + Math.exp(v - top), 0);
        parts.push(`<h4>${esc(t("eval.options"))}</h4><ol class="ev-options">${list.map(([text, v]) => `<li class="${text === one.answer ? "ev-chosen" : ""}"><span>${esc(text)}</span>${typeof v === "number" ? `<i><b style="width:${((100 * Math.exp(v - top)) / sum).toFixed(1)}%"></b></i><small title="${esc(t("eval.options.about"))}">${esc(studio.num(v, 3))}</small>` : ""}</li>`).join("")}</ol>`);
      }
      if (taken) parts.push(`<h4>${esc(t("eval.taken"))}</h4>${Object.entries(taken).map(([name, text]) => `<pre><small>${esc(name)}</small> ${esc(text)}</pre>`).join("")}`);
      for (const [name, value] of Object.entries(more)) {
        const text = typeof value === "object" ? JSON.stringify(value, null, 1) : String(value);
        parts.push(typeof value === "number" || text.length < 60 ? `<p class="ev-fact"><span>${esc(name.replaceAll("_", " "))}</span> ${esc(typeof value === "number" ? studio.num(value) : text)}</p>` : `<h4>${esc(name.replaceAll("_", " "))}</h4><pre>${esc(text)}</pre>`);
      }
      if (one.prompt) parts.push(`<h4>${esc(t("eval.prompt.own"))}</h4><pre>${esc(one.prompt)}</pre>`);
      return parts.join("");
    }

    pages() {
      const { total } = this.found, place = this.$(".ev-pages"), last = Math.min(total, this.at + PAGE);
      place.hidden = total <= PAGE;
      place.innerHTML = `<button type="button" class="st-btn st-small" data-page="${Math.max(0, this.at - PAGE)}" ${this.at ? "" : "disabled"}>${esc(t("eval.page.before"))}</button><span>${esc(t("eval.page", { from: studio.num(this.at + 1), to: studio.num(last), of: studio.num(total) }))}</span><button type="button" class="st-btn st-small" data-page="${this.at + PAGE}" ${last < total ? "" : "disabled"}>${esc(t("eval.page.next"))}</button>`;
    }
  }
  /** What was asked, without the marks of a chat template: the last turn of the person. Of a long text the end; the beginning is
      solved examples. The prompt as it was stands one click away. */
  const TURN = /(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<\|)user(?:<\|end_header_id\|>|\|>)?\s*([\s\S]*?)(?:<\|im_end\|>|<\|eot_id\|>|<end_of_turn>|<\|end\|>|$)|\[INST\]([\s\S]*?)\[\/INST\]/g;
  const asked = (text) => {
    const turn = [...text.matchAll(TURN)].at(-1), plain = (turn?.[1] || turn?.[2] || "").trim() || text;
    return plain.length > LONG ? `… ${plain.slice(-LONG)}` : plain;
  };

  studio.EvalAnswers = Answers;
})();
