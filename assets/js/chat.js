/* The Chat tab: columns of models, one prompt to all of them, and the chats of the workspace. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const { icons, spoken, message, status, settings, summary } = studio.chatParts;
  const MAX = 4, POLL = 90;
  const newKey = () => Math.random().toString(36).slice(2, 8).padEnd(6, "0");

  class Chat {
    constructor({ element, root, props, watch }) {
      Object.assign(this, { element, root, props, id: null, title: "", columns: [], shared: { system: "", settings: {} }, models: [], list: [], engines: [], running: new Set() });
      root.innerHTML = `<div class="ch">
        <aside class="ch-rail" id="chat-rail" aria-label="${esc(t("chat.chats"))}"><div class="ch-rail-top"><button type="button" class="st-btn" id="chat-new">${icons.plus}${esc(t("chat.new"))}</button>
          <input type="search" id="chat-search" placeholder="${esc(t("chat.search"))}" aria-label="${esc(t("chat.search"))}"></div><nav class="ch-list" id="chat-list" aria-label="${esc(t("chat.chats"))}"></nav><div class="ch-engines" id="chat-engines"></div></aside>
        <section class="ch-main"><header class="ch-bar"><button type="button" class="st-icon ch-toggle" id="chat-toggle" aria-controls="chat-rail" aria-expanded="false" aria-label="${esc(t("chat.chats"))}">${icons.list}</button>
          <h1 id="chat-title"></h1><button type="button" class="ch-sum" id="chat-settings" aria-expanded="false" aria-controls="chat-shared" title="${esc(t("chat.settings.shared"))}">${icons.sliders}<b>${esc(t("chat.settings"))}</b><span></span></button>
          <button type="button" class="st-icon" id="chat-take" aria-label="${esc(t("chat.take"))}" title="${esc(t("chat.take"))}">${icons.take}</button>
          <button type="button" class="st-btn st-small" id="chat-add">${icons.plus}${esc(t("chat.add"))}</button></header>
          <div class="ch-shared" id="chat-shared" hidden></div><div class="ch-cols" id="chat-columns" aria-label="${esc(t("chat.columns"))}"></div>
          <form class="ch-composer"><div class="ch-attached" id="chat-attached" hidden></div><button type="button" class="st-icon ch-attach" id="chat-attach" aria-label="${esc(t("chat.attach"))}" title="${esc(t("chat.attach"))}">${icons.picture}</button><textarea id="chat-prompt" rows="1" aria-label="${esc(t("chat.prompt"))}"></textarea><button type="submit" class="ch-send" id="chat-send" aria-label="${esc(t("chat.send"))}" title="${esc(t("chat.send"))}">${icons.send}</button>
            <button type="button" class="ch-send ch-halt" id="chat-stop" aria-label="${esc(t("chat.stop"))}" title="${esc(t("chat.stop.title"))}" hidden>${icons.stop}</button></form></section></div>`;
      this.$ = (id) => root.querySelector(`#chat-${id}`);
      this.listen();
      watch("value", () => this.wanted(props.value));
      this.ready = this.start();
      this.ready.catch((error) => studio.failed(error));
    }

    listen() {
      const prompt = this.$("prompt"), soon = (fn) => () => this.ready.then(fn);  // a quick hand may be here before the models are
      this.$("new").onclick = soon(() => this.fresh());
      this.$("add").onclick = () => { if (this.columns.length && this.columns.length < MAX) { this.columns.push(this.column("")); this.draw(); this.keep(); this.cols().at(-1).querySelector(".ch-pick").click(); } };
      this.$("toggle").onclick = () => this.rail(!this.root.querySelector(".ch").classList.contains("ch-open"));
      this.$("settings").onclick = soon(() => this.panel());
      this.$("search").oninput = () => { clearTimeout(this.wait); this.wait = setTimeout(() => this.chats(), 200); };
      this.$("list").onclick = (event) => this.pickChat(event);
      this.$("engines").onclick = (event) => this.unload(event);
      prompt.oninput = () => this.grow();
      prompt.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.send(); } };
      this.root.querySelector(".ch-main").addEventListener("pointerdown", (event) => event.target.closest("#chat-toggle") || this.rail(false));
      this.root.querySelector("form").onsubmit = (event) => { event.preventDefault(); this.send(); };
      this.$("stop").onclick = () => this.halt();
      this.attached = new studio.Attached(this);
      this.$("take").onclick = () => studio.takeChat(this);
      document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && this.running.size && this.root.getClientRects().length && !document.querySelector("dialog[open], .ch-picker")) this.halt();
      });
      this.$("columns").addEventListener("click", (event) => this.act(event));
      window.addEventListener("studio:tab", (event) => event.detail === "chat" && this.refresh());
      window.addEventListener("studio:runs-ended", () => this.refresh());
      studio.poll(this.element, 5000, async () => { if (this.known) { this.engines = await studio.call("chat_engines"); this.drawEngines(); } });
    }

    // ---- what there is

    async start() {
      const found = await studio.call("chat_start"), value = this.props.value;
      Object.assign(this, { models: found.models, known: found.settings, engines: found.engines });
      this.drawEngines();
      const linked = (studio.param("models") || "").split(",").map((s) => s.trim()).filter(Boolean);
      studio.setParam("models", null);
      if (value?.models?.length) this.fresh(value.models);
      else if (linked.length) this.fresh(linked);
      else if (studio.param("chat")) await this.open(studio.param("chat"));
      else this.fresh();
      this.asked = value?.at;
      await this.chats();
    }

    /** Another tab asked for models to be compared here. */
    async wanted(value) {
      if (value?.at && value.at !== this.asked) studio.play(value.view);
      if (!value?.models || !this.known || value.at === this.asked) return;
      this.asked = value.at;
      await this.refresh();
      this.fresh(value.models);
    }

    async refresh() {
      if (!this.known) return;
      try {
        const found = await studio.call("chat_start");
        Object.assign(this, { models: found.models, engines: found.engines });
      } catch (error) { return; }
      const tuned = this.tuned(), empty = this.columns.find((c) => !c.ref && !c.messages.length);
      if (!this.id && tuned && empty && this.columns.every((c) => c.ref !== tuned.ref)) { empty.ref = tuned.ref; this.draw(); }
      else this.heads();
      this.drawEngines();
    }

    tuned() { return this.models.find((m) => m.run_id && (m.kind === "model" || m.kind === "adapter")); }
    label(ref) {
      const known = this.models.find((m) => m.ref === ref);
      if (known) return known.label;
      try { const url = new URL(ref); if (url.host) return [url.host, decodeURIComponent(url.hash.slice(1))].filter(Boolean).join(" · "); } catch { /* not an address */ }
      return ref.replace(/^(hub|run|library):/, "").replace(/^[~/.].*?([^/]+)\/*$/, "$1") || t("chat.choose");
    }

    column(ref) { return { key: newKey(), ref, own: false, system: "", settings: {}, messages: [], panel: false }; }

    /** A new chat with these models, else with those of the columns now, else with the starter and the newest made here. */
    fresh(refs) {
      if (!refs && this.columns.length) refs = this.columns.map((c) => c.ref);
      if (!refs) refs = [this.models.find((m) => m.kind === "starter")?.ref || "", this.tuned()?.ref || ""];
      if (refs.length === 1) refs = refs[0] === "starter" ? [...refs, ""] : [this.baseOf(refs[0]), ...refs];
      Object.assign(this, { id: null, title: "", running: new Set(), columns: refs.slice(0, MAX).map((ref) => this.column(ref)) });
      studio.setParam("chat", null);
      this.draw();
      this.drawList();
      this.rail(false);
      if (this.root.getClientRects().length) this.$("prompt").focus({ preventScroll: true });
    }

    baseOf(ref) { return this.models.find((m) => m.kind === "starter" && m.ref !== ref)?.ref || ""; }

    setup() {
      const part = ({ key, ref, own, system, settings: values }) => ({ key, ref, own, system, settings: values });
      return { shared: this.shared, columns: this.columns.map(part) };
    }

    /** Store columns and settings that changed; a new chat is stored with its first message. */
    keep() {
      clearTimeout(this.later);
      if (this.id) this.later = setTimeout(() => studio.call("chat_setup", { id: this.id, setup: this.setup() }).catch((error) => studio.failed(error)), 400);
    }

    take(chat) {
      Object.assign(this, { id: chat.id, title: chat.title, shared: chat.data.shared, running: new Set(chat.running) });
      this.columns = chat.data.columns.map((c) => ({ ...c, panel: this.columns.find((o) => o.key === c.key)?.panel || false }));
      studio.setParam("chat", chat.id);
      this.draw();
      this.follow();
    }

    async open(id) {
      try { this.take(await studio.call("chat_open", { id })); } catch (error) {
        if (!error.offline) { studio.setParam("chat", null); if (!this.columns.length) this.fresh(); }
        studio.failed(error);
      }
      this.drawList();
      this.rail(false);
    }

    // ---- asking

    async send(text = this.$("prompt").value) {
      if (!text.trim() || this.running.size || this.sending) return;
      this.busy(true);
      try {
        await this.ready;
        clearTimeout(this.later);
        this.take(await studio.call("chat_ask", { id: this.id, setup: this.setup(), text, images: this.attached.images }));
        this.attached.clear();
        if (this.$("prompt").value === text) this.$("prompt").value = "";
        this.grow();
        this.chats();
      } catch (error) { studio.failed(error); } finally { this.busy(false); }
    }

    async again(name, values) {
      clearTimeout(this.later);
      this.busy(true);
      try { this.take(await studio.call(name, { id: this.id, setup: this.setup(), ...values })); } catch (error) { studio.failed(error); } finally { this.busy(false); }
    }

    busy(sending) { this.sending = sending; this.buttons(); }

    async halt(column = null) {
      try { await studio.call("chat_stop", { id: this.id, column }); } catch (error) { studio.failed(error); }
    }

    /** Fetch what is new while answers come; one loop for all columns. */
    async follow() {
      this.buttons();
      if (this.following || !this.running.size) return;
      this.following = true;
      while (this.running.size && this.element.isConnected) {
        const id = this.id;
        await new Promise((resolve) => setTimeout(resolve, document.visibilityState === "visible" ? POLL : 1500));
        try {
          const seen = Object.fromEntries(this.columns.filter((c) => this.running.has(c.key)).map((c) => [c.key, c.messages.at(-1)?.content.length ?? 0]));
          const news = await studio.call("chat_poll", { id, seen });
          if (id !== this.id) continue;
          const ended = [...this.running].filter((key) => !news[key]);
          for (const column of this.columns) if (news[column.key]) this.grown(column, news[column.key]);
          if (ended.length) await this.ended(id, ended);
        } catch (error) {
          if (!error.offline) { this.running.clear(); studio.failed(error); }
        }
      }
      this.following = false;
      this.buttons();
      if (this.running.size) this.follow();
    }

    grown(column, news) {
      const last = column.messages.at(-1);
      if (!last || last.id !== news.id) return;
      const content = last.content.slice(0, news.from) + news.content, grew = content !== last.content;
      Object.assign(last, news, { content });
      if (grew) this.tail(column);
      this.line(column);
    }

    async ended(id, keys) {
      const chat = await studio.call("chat_open", { id });
      if (id !== this.id) return;
      for (const key of keys) {
        const column = this.columns.find((c) => c.key === key), stored = chat.data.columns.find((c) => c.key === key);
        if (!chat.running.includes(key)) this.running.delete(key);
        if (!column || !stored) continue;
        column.messages = stored.messages;
        this.tail(column, true);
        this.line(column);
        studio.say(t("chat.answered", { model: this.label(column.ref) }));
      }
      if (!this.running.size) { this.log(null); this.engines = await studio.call("chat_engines"); this.drawEngines(); }
    }

    // ---- drawing

    cols() { return [...this.$("columns").children]; }
    place(column) { return this.$("columns").querySelector(`[data-key="${column.key}"]`); }

    draw() {
      this.$("title").textContent = this.title || t("chat.untitled");
      this.$("columns").style.setProperty("--n", this.columns.length);
      this.$("columns").innerHTML = this.columns.map((c) => `<article class="ch-col" data-key="${c.key}"><header><button type="button" class="ch-pick" data-act="pick"></button>
        <button type="button" class="st-icon" data-act="own" aria-label="${esc(t("chat.settings.own"))}" title="${esc(t("chat.settings.own"))}">${icons.sliders}</button>
        <button type="button" class="st-icon" data-act="remove" aria-label="${esc(t("chat.remove"))}" title="${esc(t("chat.remove"))}" ${this.columns.length < 2 ? "hidden" : ""}>${icons.close}</button></header>
        <p class="ch-caution" role="note" hidden></p><div class="ch-own" hidden></div><div class="ch-log" role="log" aria-live="off" tabindex="0"></div><footer class="ch-status" role="status" aria-live="off"></footer></article>`).join("");
      for (const column of this.columns) {
        new studio.Picker(this.place(column).querySelector(".ch-pick"), () => this.models, (ref) => this.choose(column, ref));
        this.log(column);
        this.line(column);
        if (column.panel) this.own(column, true);
      }
      this.heads();
      this.summed();
      this.buttons();
    }

    heads() {
      this.columns.forEach((column, i) => {
        const place = this.place(column), pick = place?.querySelector(".ch-pick"), model = this.models.find((m) => m.ref === column.ref);
        if (!pick) return;
        pick.dataset.ref = column.ref;
        pick.title = column.ref;
        pick.innerHTML = `<b>${esc(this.label(column.ref))}</b>${model?.kind === "adapter" ? `<span class="st-tag">${esc(t("item.adapter"))}</span>` : ""}<i class="st-chevron" aria-hidden="true"></i>`;
        pick.classList.toggle("ch-unset", !column.ref);
        const caution = place.querySelector(".ch-caution");
        caution.textContent = model?.warning || "";
        caution.hidden = !model?.warning;
        place.setAttribute("aria-label", t("chat.column", { n: i + 1, model: this.label(column.ref) }));
        pick.setAttribute("aria-label", `${t("chat.pick")}: ${this.label(column.ref)}`);
        place.querySelector("[data-act=own]").classList.toggle("ch-on", column.own);
      });
    }

    /** A column's messages; `null`: of every column. */
    log(column) {
      if (!column) return this.columns.forEach((c) => this.log(c));
      const log = this.place(column).querySelector(".ch-log"), label = this.label(column.ref), rest = !this.running.size;
      if (log.querySelector(".ch-editing") && rest) return;
      log.innerHTML = column.messages.length ? column.messages.map((m, i) => message(m, i, label, rest && (m.role === "user" || i === column.messages.length - 1))).join("") : this.empty(column);
      log.scrollTop = log.scrollHeight;
    }

    empty(column) {
      if (!column.ref) return `<div class="st-empty"><b>${esc(t("chat.empty.choose"))}</b><p>${esc(t("chat.empty.choose.hint"))}</p>${this.tuned() ? "" : `<button type="button" class="st-btn" data-act="train">${esc(t("chat.empty.train"))}</button>`}</div>`;
      if (this.columns.some((c) => c.messages.length) || column !== this.columns.find((c) => c.ref)) return `<div class="st-empty"><p>${esc(t("chat.empty.one"))}</p></div>`;
      return `<div class="st-empty"><b>${esc(t("chat.empty"))}</b><p>${esc(t("chat.empty.hint"))}</p><div class="ch-examples">${[1, 2, 3].map((n) => `<button type="button" class="st-btn st-small" data-act="example">${esc(t(`chat.example.${n}`))}</button>`).join("")}</div></div>`;
    }

    /** Only the last message changed. */
    tail(column) {
      const log = this.place(column)?.querySelector(".ch-log");
      if (!log) return;
      const low = log.scrollHeight - log.scrollTop - log.clientHeight < 60, i = column.messages.length - 1, m = column.messages[i];
      const old = log.querySelector(`[data-i="${i}"]`), live = m.state === "answering" || m.state === "loading";
      if (!old) return this.log(column);
      if (live && old.classList.contains("ch-live")) old.querySelector(".ch-text").innerHTML = spoken(m, Boolean(old.querySelector(".ch-thought[open]")));
      else old.outerHTML = message(m, i, this.label(column.ref), !this.running.size);
      if (low) log.scrollTop = log.scrollHeight;
    }

    line(column) {
      const place = this.place(column)?.querySelector(".ch-status");
      const last = column.messages.at(-1), html = status(last?.role === "assistant" ? last : null);
      if (place && place.innerHTML !== html) place.innerHTML = html;
    }

    summed() { this.root.querySelector(".ch-sum span").textContent = summary(this.shared, this.known.defaults); }

    buttons() {
      this.root.querySelector(".ch").setAttribute("aria-busy", String(this.running.size > 0 || !!this.sending));
      const busy = this.running.size > 0, prompt = this.$("prompt"), one = this.columns.length === 1;
      this.$("send").hidden = busy;
      this.$("stop").hidden = !busy;
      this.$("add").disabled = this.columns.length >= MAX;
      this.$("add").hidden = this.columns.length >= MAX;
      prompt.placeholder = t(innerWidth < 760 ? (one ? "chat.prompt.one" : "chat.prompt.short") : one ? "chat.prompt.placeholder.one" : "chat.prompt.placeholder");
      prompt.setAttribute("aria-label", t(one ? "chat.prompt.one" : "chat.prompt"));
    }

    grow() {
      const prompt = this.$("prompt");
      prompt.style.height = "auto";
      prompt.style.height = `${Math.min(prompt.scrollHeight + 2, innerHeight * 0.3)}px`;
    }

    rail(open) {
      this.root.querySelector(".ch").classList.toggle("ch-open", open);
      this.$("toggle").setAttribute("aria-expanded", String(open));
    }

    panel() {
      const place = this.$("shared"), open = place.hidden;
      place.hidden = !open;
      this.$("settings").setAttribute("aria-expanded", String(open));
      if (open) settings(place, this.shared, this.known, "chat-set", () => { this.summed(); this.keep(); });
    }

    own(column, open) {
      const place = this.place(column).querySelector(".ch-own");
      column.panel = open;
      place.hidden = !open;
      if (!open) return;
      place.innerHTML = `<label class="st-check"><input type="checkbox" ${column.own ? "checked" : ""}> ${esc(t("chat.settings.use_own"))}</label><div ${column.own ? "" : "hidden"}></div>`;
      const inner = place.querySelector("div"), show = () => settings(inner, column, this.known, `chat-${column.key}`, () => this.keep());
      if (column.own) show();
      place.querySelector("input").onchange = (event) => {
        column.own = event.target.checked;
        if (column.own && !column.system && !Object.keys(column.settings).length) { column.system = this.shared.system; column.settings = { ...this.shared.settings }; }
        inner.hidden = !column.own;
        if (column.own) show();
        this.heads();
        this.keep();
      };
    }

    // ---- acting on columns

    choose(column, ref) {
      column.ref = ref;
      if (column.messages.length) this.heads(); else { this.log(null); this.heads(); }
      this.keep();
      this.$("prompt").focus({ preventScroll: true });
    }

    async act(event) {
      const code = event.target.closest("[data-copy-code]");
      if (code) return studio.copy(code.closest(".ch-code").querySelector("pre").textContent, code);
      const hit = event.target.closest("[data-act]"), key = hit?.closest("[data-key]")?.dataset.key;
      const column = this.columns.find((c) => c.key === key), index = +hit?.closest("[data-i]")?.dataset.i;
      if (!column) return;
      const act = hit.dataset.act;
      if (act === "own") this.own(column, !column.panel);
      if (act === "train") studio.show("finetune");
      if (act === "example") this.send(hit.textContent);
      if (act === "copy") { await studio.copy(column.messages[index].content.replace(/^\s*<think>[\s\S]*?<\/think>\s*/, "")); hit.classList.add("ch-done"); setTimeout(() => hit.classList.remove("ch-done"), 1200); studio.say(t("action.copied")); }
      if (act === "retry") this.again("chat_retry", { column: key });
      if (act === "edit") this.edit(column, index);
      if (act === "branch") this.again("chat_branch", { column: key, index }).then(() => this.chats());
      if (act === "choose") this.again("chat_choose", { column: key, index, which: +hit.dataset.which });
      if (act === "remove") this.remove(column);
    }

    async remove(column) {
      if (column.messages.length && !(await studio.ask(t("chat.remove"), `<p>${esc(t("chat.remove.body"))}</p>`, t("chat.remove"), true))) return;
      if (this.running.has(column.key)) await this.halt(column.key);
      this.running.delete(column.key);
      this.columns = this.columns.filter((c) => c !== column);
      this.draw();
      this.keep();
    }

    edit(column, index) {
      const place = this.place(column).querySelector(`[data-i="${index}"]`), text = column.messages[index].content;
      place.classList.add("ch-editing");
      place.innerHTML = `<textarea aria-label="${esc(t("chat.edit.title"))}">${esc(text)}</textarea><div class="st-actions"><button type="button" class="st-btn st-small" data-cancel>${esc(t("action.cancel"))}</button><button type="button" class="st-btn st-small st-primary" data-go>${esc(t("chat.edit.send"))}</button></div>`;
      const area = place.querySelector("textarea"), back = () => { place.classList.remove("ch-editing"); this.log(column); };
      const go = () => { if (area.value.trim()) { place.classList.remove("ch-editing"); this.again("chat_edit", { column: column.key, index, text: area.value }); } };
      area.style.height = `${area.scrollHeight + 4}px`;
      area.focus();
      area.setSelectionRange(text.length, text.length);
      area.onkeydown = (event) => {
        if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); go(); }
        if (event.key === "Escape") { event.stopPropagation(); back(); }
      };
      place.querySelector("[data-cancel]").onclick = back;
      place.querySelector("[data-go]").onclick = go;
    }

    // ---- the list of chats, and what is in memory

    async chats() {
      try { this.list = await studio.call("chats", { query: this.$("search").value }); } catch (error) { return; }
      const mine = this.list.find((c) => c.id === this.id);
      if (mine) { this.title = mine.title; this.$("title").textContent = mine.title; }
      this.drawList();
    }

    drawList() {
      const row = (c) => `<div class="ch-row${c.id === this.id ? " ch-now" : ""}" data-id="${esc(c.id)}"><button type="button" class="ch-item" ${c.id === this.id ? 'aria-current="true"' : ""} title="${esc(c.title)}"><b>${esc(c.title)}</b><small>${esc(studio.ago(c.updated))}</small></button>
        <button type="button" class="ch-act" data-do="rename" aria-label="${esc(t("chat.rename"))}: ${esc(c.title)}" title="${esc(t("chat.rename"))}">${icons.edit}</button><button type="button" class="ch-act" data-do="delete" aria-label="${esc(t("chat.delete"))}: ${esc(c.title)}" title="${esc(t("chat.delete"))}">${icons.bin}</button></div>`;
      this.$("list").innerHTML = this.list.length ? this.list.map(row).join("") : `<p class="ch-none">${esc(t(this.$("search").value ? "chat.none_match" : "chat.none"))}</p>`;
    }

    async pickChat(event) {
      const id = event.target.closest("[data-id]")?.dataset.id, what = event.target.closest("[data-do]")?.dataset.do;
      const chat = this.list.find((c) => c.id === id);
      if (!chat) return;
      if (!what) return this.open(id);
      try {
        if (what === "rename") {
          const answer = await studio.ask(t("chat.rename"), `<label class="st-line">${esc(t("chat.title"))}<input name="title" required maxlength="80" value="${esc(chat.title)}" autofocus></label>`, t("action.rename"));
          if (answer) await studio.call("chat_rename", { id, title: answer.title });
        } else if (await studio.ask(t("chat.delete"), `<p>${esc(t("chat.delete.body", { title: chat.title }))}</p>`, t("action.delete"), true)) {
          if (id === this.id && this.running.size) await this.halt();
          await studio.call("chat_delete", { id });
          if (id === this.id) this.fresh();
        }
      } catch (error) { studio.failed(error); }
      this.chats();
    }

    drawEngines() {
      const row = (e) => `<div class="ch-engine" data-engine="${esc(e.id)}"><span title="${esc(e.base)}">${esc(this.label(e.base) === e.base ? e.label : this.label(e.base))}</span><small>${e.state === "ready" ? studio.bytes(e.rss_bytes) : esc(t("chat.loading_engine"))}${e.adapters.length ? ` · ${esc(t(e.adapters.length === 1 ? "chat.adapter" : "chat.adapters", { n: e.adapters.length }))}` : ""}</small>
        <button type="button" class="st-link" aria-label="${esc(t("chat.unload", { name: e.label }))}" ${e.active ? "disabled" : ""}>${esc(t("chat.unload.short"))}</button></div>`;
      const html = this.engines.length ? `<h2>${esc(t("chat.loaded"))}</h2>${this.engines.map(row).join("")}` : "";
      if (html !== this.engineHtml) this.$("engines").innerHTML = this.engineHtml = html;
    }

    async unload(event) {
      const id = event.target.closest("button") && event.target.closest("[data-engine]")?.dataset.engine;
      const engine = this.engines.find((e) => e.id === id);
      if (!engine) return;
      try {
        await studio.call("chat_unload", { id });
        studio.toast(t("chat.unloaded", { name: engine.label }));
        this.engines = await studio.call("chat_engines");
        this.drawEngines();
      } catch (error) { studio.failed(error); }
    }
  }
  studio.parts.chat = (context) => (studio.chat = new Chat(context));
})();
