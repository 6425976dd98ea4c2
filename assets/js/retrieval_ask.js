/* A question to a model, with what a collection holds about it and without; the sources, what was left out and why, the prompt as it was sent. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-retrieval-ask", LAST = "studio-retrieval-last";
  const CHOICES = { way: ["fused", "words", "vectors"], rerank: ["none", "diverse", "likelihood", "cross"], layout: ["numbered", "bare"], guard: ["delimit", "datamark", "none"] };
  const kept = (store, key) => { try { return JSON.parse(store.getItem(key)) || {}; } catch { return {}; } };

  class Ask {
    constructor(place, view) {
      const before = kept(localStorage, KEY), defaults = view.facts.asking;
      Object.assign(this, { place, view, model: before.model || "starter", how: { ...defaults, ...before.how } });
      const select = (name) => `<label class="rt-field"><span>${esc(t(`retrieval.how.${name}`))}</span><select name="${name}" title="${esc(t(`retrieval.how.${name}.help`))}">${CHOICES[name].map((v) => `<option value="${v}" ${v === this.how[name] ? "selected" : ""}>${esc(t(`retrieval.${name}.${v}`))}</option>`).join("")}</select></label>`;
      place.innerHTML = `<div class="rt-ask"><form class="rt-form"><div class="rt-row"><textarea id="rt-question" rows="2" maxlength="8000" aria-label="${esc(t("retrieval.question"))}" placeholder="${esc(t("retrieval.question.hint"))}"></textarea><button type="submit" class="st-btn st-primary" data-ask>${esc(t("retrieval.ask"))}</button></div>
        <div class="rt-how"><button type="button" class="st-btn st-small" data-model></button><label class="st-check"><input type="checkbox" name="without" ${this.how.without ? "checked" : ""}>${esc(t("retrieval.how.without"))}</label>
        <details><summary>${esc(t("retrieval.how"))}</summary><div class="rt-set rt-choices">${["way", "rerank"].map(select).join("")}<label class="rt-field rt-reranker" hidden><span>${esc(t("retrieval.how.reranker"))}</span><input name="reranker" value="${esc(this.how.reranker)}" placeholder="starter" list="rt-models"><datalist id="rt-models">${view.facts.models.map((m) => `<option value="${esc(m.ref)}">${esc(m.label)}</option>`).join("")}</datalist></label><label class="rt-field"><span>${esc(t("retrieval.how.sources"))}</span><input name="sources" type="number" min="1" max="${view.facts.most_sources}" value="${esc(this.how.sources)}"></label>${["layout", "guard"].map(select).join("")}</div></details></div></form>
        <div class="rt-found" aria-live="polite"></div></div>`;
      this.$ = (selector) => place.querySelector(selector);
      const area = this.$("textarea"), button = this.$("[data-model]");
      area.value = before.question || "";
      area.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.ask(); } };
      area.oninput = () => this.keep();
      this.$("form").onsubmit = (event) => { event.preventDefault(); this.ask(); };
      this.$(".rt-how").onchange = () => { this.read(); this.keep(); };
      this.picker = new studio.Picker(button, () => view.facts.models, (ref) => { this.model = ref; this.keep(); this.named(); });
      this.$(".rt-found").onclick = (event) => this.click(event);
      this.read();
      this.named();
      const last = kept(sessionStorage, LAST);
      if (last.collection === view.now.id) this.watch(last.id);
      else this.hint();
    }

    hint() { this.$(".rt-found").innerHTML = `<div class="st-empty"><b>${esc(t("retrieval.ask.start"))}</b><p>${esc(t("retrieval.ask.hint"))}</p></div>`; }

    named() {
      const button = this.$("[data-model]");
      button.dataset.ref = this.model;
      button.textContent = t("retrieval.model", { name: this.view.facts.models.find((m) => m.ref === this.model)?.label || this.model });
    }

    read() {
      const value = (name) => this.$(`[name=${name}]`).value;
      this.how = { way: value("way"), rerank: value("rerank"), reranker: value("reranker").trim(), sources: Number(value("sources")), layout: value("layout"), guard: value("guard"), without: this.$("[name=without]").checked };
      this.$(".rt-reranker").hidden = !["likelihood", "cross"].includes(this.how.rerank);
      this.$("[name=guard]").disabled = this.how.layout === "bare";
    }

    keep() { try { localStorage.setItem(KEY, JSON.stringify({ model: this.model, how: this.how, question: this.$("textarea").value })); } catch { /* a convenience only */ } }

    async ask() {
      const question = this.$("textarea").value.trim();
      if (!question || this.busy) return;
      this.read();
      this.keep();
      this.busy = true;
      this.$("[data-ask]").disabled = true;
      try {
        const found = await studio.call("retrieval_ask", { id: this.view.now.id, question, model: this.model, how: this.how });
        sessionStorage.setItem(LAST, JSON.stringify({ id: found.id, collection: this.view.now.id }));
        this.draw(found);
        this.watch(found.id);
      } catch (error) { this.done(); studio.failed(error); }
    }

    watch(id) {
      clearInterval(this.timer);
      const tick = async () => {
        if (!this.place.isConnected || !this.place.contains(this.$("form"))) return clearInterval(this.timer);
        if (this.polling || document.visibilityState !== "visible") return;
        this.polling = true;
        try {
          const found = await studio.call("retrieval_poll", { id });
          this.draw(found);
          if (["done", "failed"].includes(found.state)) { clearInterval(this.timer); this.done(); }
        } catch (error) { if (!error.offline) { clearInterval(this.timer); this.done(); if (!this.found) this.hint(); } } finally { this.polling = false; }
      };
      this.timer = setInterval(tick, 350);
      tick();
    }

    done() { this.busy = false; const button = this.$("[data-ask]"); if (button) button.disabled = false; }

    /* ---- what came */

    draw(found) {
      this.found = found;
      const place = this.$(".rt-found");
      if (!place) return;
      if (place.dataset.id !== found.id) { place.dataset.id = found.id; place.innerHTML = `<header class="rt-asked"></header><div class="rt-sides"></div><div class="rt-sources"></div>`; this.shown = ""; }
      const part = (name) => place.querySelector(`.rt-${name}`), working = !["done", "failed"].includes(found.state);
      part("asked").innerHTML = `<p><span class="st-muted">${esc(found.label)}</span> ${esc(found.question)}</p>${working ? `<button type="button" class="st-btn st-small" data-stop>${esc(t("retrieval.stop"))}</button>` : ""}${found.error ? `<div class="st-finding st-level-error"><b>${esc(found.error.message)}</b><span>${esc(found.error.hint || "")}</span></div>` : ""}`;
      part("sides").innerHTML = Object.entries(found.sides).map(([side, one]) => this.side(side, one, found)).join("");
      for (const text of part("sides").querySelectorAll("[data-side=with] .ch-text")) this.cite(text, found.sources.length);
      const key = JSON.stringify([found.state === "searching", found.sources.length, found.left_out.map((one) => one.id)]);
      if (key !== this.shown) { this.shown = key; part("sources").innerHTML = this.sources(found); }
    }

    side(side, one, found) {
      const body = one.state === "failed" ? `<div class="st-finding st-level-error"><b>${esc(one.error)}</b><span>${esc(one.hint || "")}</span></div>`
        : one.state === "nothing" ? `<p class="st-muted">${esc(t("retrieval.nothing"))}</p>`
        : one.text ? `<div class="ch-text">${studio.markdown(one.text)}</div>` : one.state === "done" ? `<p class="st-muted">${esc(t("retrieval.silent"))}</p>`
        : found.state === "failed" ? "" : `<p class="st-working">${esc(t(`retrieval.side.${found.state === "searching" ? "searching" : one.state}`))}</p>`;
      const facts = [one.tokens ? t("retrieval.tokens", { n: one.tokens }) : "", one.ttft ? t("retrieval.ttft", { s: studio.num(one.ttft, 2) }) : "", one.finish === "length" ? t("retrieval.cut_off") : ""].filter(Boolean).join(" · ");
      const asked = found.prompts[side];
      return `<article class="rt-side" data-side="${side}"><header><b>${esc(t(`retrieval.side.${side}`))}</b><small>${esc(facts)}</small></header>${body}${asked ? `<button type="button" class="st-link" data-prompt="${side}">${esc(t("retrieval.prompt"))}${asked.tokens ? ` · ${esc(t("retrieval.tokens", { n: asked.tokens }))}` : ""}</button>` : ""}</article>`;
    }

    /** [2] in an answer opens source 2; a number that no source has is told. */
    cite(place, count) {
      const walker = document.createTreeWalker(place, NodeFilter.SHOW_TEXT), nodes = [];
      while (walker.nextNode()) if (/\[\d{1,2}\]/.test(walker.currentNode.data)) nodes.push(walker.currentNode);
      for (const node of nodes) {
        const made = document.createElement("span");
        made.innerHTML = esc(node.data).replace(/\[(\d{1,2})\]/g, (all, n) => (n >= 1 && n <= count ? `<button type="button" class="rt-cite" data-source="${n}" title="${esc(t("retrieval.source.open", { n }))}">${n}</button>` : `<span class="rt-cite rt-wrong" title="${esc(t("retrieval.source.none", { n }))}">${n}?</span>`));
        node.replaceWith(made);
      }
    }

    sources(found) {
      if (found.state === "searching") return "";
      const ranks = (one) => [one.words ? t("retrieval.rank.words", { n: one.words }) : "", one.vectors ? t("retrieval.rank.vectors", { n: one.vectors }) : "", one.before ? t("retrieval.rank.before", { n: one.before }) : ""].filter(Boolean).join(" · ");
      const head = (one) => `<button type="button" class="st-link" data-read="${one.document}" data-start="${one.start}" data-end="${one.end}">${esc(one.title)}${one.place ? ` · ${esc(one.place)}` : ""}</button><small>${esc(ranks(one))}</small>`;
      const source = (one) => `<article class="rt-chunk${one.let_in ? " rt-flagged" : ""}" data-number="${one.number}"><header><b class="rt-number">${one.number}</b>${head(one)}${one.let_in ? `<span class="st-tag rt-warn">${esc(t("retrieval.is_in"))}</span><button type="button" class="st-btn st-small" data-let="${one.id}" data-yes="false">${esc(t("retrieval.leave_out"))}</button>` : ""}</header><p>${esc(one.text)}</p>${one.let_in ? `<ul class="st-findings">${studio.retrievalFlags(one.flags)}</ul>` : ""}</article>`;
      const left = (one) => `<article class="rt-chunk rt-flagged" data-left="${one.id}"><header>${head(one)}<span class="st-tag rt-warn">${esc(t("retrieval.is_out"))}</span><button type="button" class="st-btn st-small" data-let="${one.id}" data-yes="true">${esc(t("retrieval.let_in"))}</button></header><p>${esc(one.text)}</p><ul class="st-findings">${studio.retrievalFlags(one.flags)}</ul></article>`;
      return `${found.dropped ? `<p class="st-finding st-level-warning"><b>${esc(t("retrieval.dropped", { n: found.dropped }))}</b><span>${esc(t("retrieval.dropped.hint", { context: found.prompts.with?.context }))}</span></p>` : ""}
        ${found.left_out.length ? `<p class="st-finding st-level-warning"><b>${esc(t("retrieval.left_out.count", { n: found.left_out.length }))}</b><span>${esc(t("retrieval.left_out.below"))}</span></p>` : ""}
        ${found.sources.length ? `<h2>${esc(t("retrieval.sources"))}</h2>${found.sources.map(source).join("")}` : found.state === "failed" ? "" : `<p class="st-muted">${esc(t("retrieval.no_sources"))}</p>`}
        ${found.left_out.length ? `<h2>${esc(t("retrieval.left_out"))}</h2><p class="st-muted">${esc(t("retrieval.left_out.help"))}</p>${found.left_out.map(left).join("")}` : ""}`;
    }

    async click(event) {
      const button = event.target.closest("button"), d = button?.dataset;
      if (!d) return;
      if (d.source) {
        const card = this.place.querySelector(`[data-number="${d.source}"]`), one = this.found.sources[d.source - 1];
        card?.scrollIntoView({ block: "nearest" });
        event.stopPropagation();
        return this.view.read(one.document, one.start, one.end);
      }
      if (d.prompt) return this.prompt(this.found.prompts[d.prompt]);
      if (d.stop !== undefined) { try { await studio.call("retrieval_stop", { id: this.found.id }); } catch (error) { studio.failed(error); } }
      if (d.let && (await this.view.letIn(Number(d.let), d.yes === "true"))) { button.closest("article").remove(); this.ask(); }
    }

    /** As the model saw it: through its template where that is known, else the messages that were sent. */
    prompt(asked) {
      const body = asked.text ? `<p class="st-muted">${esc(t("retrieval.prompt.template", { tokens: asked.tokens, context: asked.context || "?" }))}</p><pre class="st-code rt-prompt">${esc(asked.text)}</pre>`
        : `<p class="st-muted">${esc(t("retrieval.prompt.sent"))}</p><pre class="st-code rt-prompt">${esc(asked.messages.map((m) => `[${m.role}]\n${m.content}`).join("\n\n"))}</pre>`;
      const closed = studio.ask(t("retrieval.prompt"), body, "");
      document.querySelector("dialog.st-dialog:last-of-type")?.classList.add("rt-reader");
      return closed;
    }
  }

  studio.RetrievalAsk = Ask;
})();
