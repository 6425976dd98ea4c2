/* The tools view of the Chat tab: a conversation in which the model may call tools, every call and result to be opened; switches; MCP servers. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-tools", LAST = "studio-tools-chat", DEFAULT = ["calculator", "clock", "convert_units", "run_python"];
  const kept = () => { try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch { return {}; } };
  const json = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 1));
  const short = (value) => { const s = typeof value === "string" ? value : Object.entries(value || {}).map(([k, v]) => `${k}: ${typeof v === "string" ? v : JSON.stringify(v)}`).join(", "); return s.length > 90 ? `${s.slice(0, 90)}…` : s; };

  class Tools {
    constructor({ root }) {
      Object.assign(this, { root, chat: null, opened: new Set(), setup: { model: "starter", system: "", tools: DEFAULT, collection: "", calls: "auto", rounds: 8, ...kept() } });
      root.innerHTML = `<div class="tl"><section class="tl-main" aria-label="${esc(t("tools.title"))}"><header class="tl-bar"><button type="button" class="st-btn st-small" data-model></button><select class="tl-chats" aria-label="${esc(t("tools.chats"))}"></select><button type="button" class="st-link" data-delete hidden>${esc(t("tools.delete"))}</button><button type="button" class="st-btn st-small" data-new>${esc(t("tools.new"))}</button></header>
        <div class="tl-log" tabindex="0"></div><form class="ch-composer tl-ask"><textarea id="tools-prompt" rows="1" maxlength="50000" aria-label="${esc(t("tools.prompt"))}" placeholder="${esc(t("tools.prompt"))}"></textarea><button type="submit" class="st-btn st-primary" data-send>${esc(t("tools.send"))}</button><button type="button" class="st-btn" data-stop hidden>${esc(t("tools.stop"))}</button></form></section>
        <aside class="tl-side" aria-label="${esc(t("tools.list"))}"></aside></div>`;
      this.$ = (selector) => root.querySelector(selector);
      const area = this.$("textarea");
      area.onkeydown = (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); this.send(); } };
      this.$("form").onsubmit = (event) => { event.preventDefault(); this.send(); };
      root.addEventListener("click", (event) => this.click(event));
      root.addEventListener("change", (event) => this.change(event));
      this.$(".tl-log").addEventListener("toggle", (event) => { const id = event.target.dataset?.call; if (id) this.opened[event.target.open ? "add" : "delete"](id); }, true);
      studio.plays.tools = { shown: () => this.load() };
      if (studio.playing() === "tools") this.load();
    }

    async load() {
      try { this.facts = await studio.call("tools", { all: true }); } catch (error) { this.$(".tl-log").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; return; }
      const names = this.facts.tools.map((tool) => tool.name);
      this.setup.tools = this.setup.tools.filter((name) => names.includes(name));
      if (!this.facts.collections.some((c) => c.id === this.setup.collection)) this.setup.collection = "";
      this.picker ??= new studio.Picker(this.$("[data-model]"), () => this.facts.models, (ref) => { this.setup.model = ref; this.keep(); this.bar(); });
      const last = sessionStorage.getItem(LAST);
      if (!this.chat && last && this.facts.chats.some((c) => c.id === last)) await this.open(last);
      this.bar();
      this.side();
      this.log();
    }

    keep() { try { localStorage.setItem(KEY, JSON.stringify(this.setup)); } catch { /* a convenience only */ } }

    bar() {
      const button = this.$("[data-model]"), list = this.facts.chats;
      button.dataset.ref = this.setup.model;
      button.textContent = t("tools.model", { name: this.facts.models.find((m) => m.ref === this.setup.model)?.label || this.setup.model });
      this.$(".tl-chats").innerHTML = `<option value="">${esc(t("tools.chats.none"))}</option>${list.map((c) => `<option value="${c.id}" ${c.id === this.chat?.id ? "selected" : ""}>${esc(c.title)}</option>`).join("")}`;
      this.$("[data-delete]").hidden = !this.chat;
    }

    /* ---- the conversation */

    async open(id) {
      try { this.chat = await studio.call("tools_open", { id }); } catch (error) { sessionStorage.removeItem(LAST); return studio.failed(error); }
      sessionStorage.setItem(LAST, id);
      const names = this.facts.tools.map((tool) => tool.name);
      this.setup = { ...this.setup, ...this.chat.setup, tools: this.chat.setup.tools.filter((name) => names.includes(name)) };
      this.opened.clear();
      this.watch();
    }

    async send() {
      const area = this.$("textarea"), text = area.value.trim();
      if (!text || (this.chat && this.chat.state !== "resting")) return;
      try {
        this.chat = await studio.call("tools_ask", { id: this.chat?.id || null, setup: this.setup, text });
        area.value = "";
        sessionStorage.setItem(LAST, this.chat.id);
        this.log(true);
        this.watch();
      } catch (error) { studio.failed(error); }
    }

    watch() {
      clearInterval(this.timer);
      if (!this.chat || this.chat.state === "resting") return;
      const id = this.chat.id;
      this.timer = setInterval(async () => {
        if (this.polling || document.visibilityState !== "visible") return;
        this.polling = true;
        try {
          const found = await studio.call("tools_open", { id });
          if (this.chat?.id !== id) return;
          const before = JSON.stringify(this.chat);
          this.chat = found;
          if (before !== JSON.stringify(found)) this.log();
          if (found.state === "resting") { clearInterval(this.timer); this.facts.chats = (await studio.call("tools")).chats; this.bar(); this.buttons(); }
        } catch (error) { if (!error.offline) { clearInterval(this.timer); studio.failed(error); } } finally { this.polling = false; }
      }, 350);
    }

    log(down = false) {
      const place = this.$(".tl-log"), chat = this.chat;
      if (!chat) {
        place.innerHTML = `<div class="st-empty"><b>${esc(t("tools.empty"))}</b><p>${esc(t("tools.lead"))}</p><div class="ch-examples">${["tools.example.sum", "tools.example.time", "tools.example.python"].map((k) => `<button type="button" class="st-btn st-small" data-example>${esc(t(k))}</button>`).join("")}</div></div>`;
        return this.buttons();
      }
      const near = down || place.scrollHeight - place.scrollTop - place.clientHeight < 80, results = new Map(chat.turns.filter((one) => one.role === "tool").map((one) => [one.id, one]));
      place.innerHTML = chat.turns.map((one) => this.turn(one, results)).join("") + this.foot();
      if (near) place.scrollTop = place.scrollHeight;
      this.buttons();
    }

    turn(one, results) {
      if (one.role === "tool") return "";
      if (one.role === "user") return `<article class="ch-msg ch-user"><div class="ch-text">${esc(one.content)}</div></article>`;
      const facts = [one.tokens ? t("tools.tokens", { n: one.tokens }) : "", one.tokens_per_second ? `${studio.num(one.tokens_per_second, 3)} tok/s` : "", one.finish === "length" ? t("tools.cut_off") : "", one.finish === "stopped" ? t("tools.stopped") : "", one.way === "text" ? t("tools.in_words") : ""].filter(Boolean).join(" · ");
      return `<article class="ch-msg ch-bot"><div class="ch-by">${esc(one.model)} <small>${esc(facts)}</small></div>${one.note ? `<p class="st-muted">${esc(one.note)}</p>` : ""}
        ${one.reasoning ? `<details class="tl-thought"><summary>${esc(t("tools.thought"))}</summary><div>${esc(one.reasoning)}</div></details>` : ""}${one.content ? `<div class="ch-text">${studio.markdown(one.content)}</div>` : ""}${one.calls.map((call) => this.call(call, results.get(call.id))).join("")}</article>`;
    }

    /** A call, folded; its result when it is there, and the question whether it may be made. */
    call(call, result) {
      const waits = this.chat.pending?.id === call.id ? this.chat.pending : null, state = waits ? "waiting" : result?.state || "calling";
      const open = waits || this.opened.has(call.id) ? "open" : "";
      const flags = (list) => (list?.length ? `<ul class="st-findings">${list.map((f) => `<li class="st-finding st-level-warning"><b>${esc(t(`retrieval.flag.${f.code}`))}</b><span>${esc(f.words)}</span></li>`).join("")}</ul>` : "");
      const ask = waits ? `<div class="tl-confirm" role="alert"><p>${esc(t(waits.kind === "result" ? "tools.confirm.result" : "tools.confirm.call", { name: waits.name, source: waits.source }))}</p>${waits.kind === "result" ? `${flags(waits.flags)}<pre class="st-code">${esc(waits.result)}</pre>` : ""}
        <div class="st-actions"><button type="button" class="st-btn st-primary" data-choice="once">${esc(t(waits.kind === "result" ? "tools.pass_on" : "tools.allow.once"))}</button>${waits.kind === "result" ? "" : `<button type="button" class="st-btn" data-choice="chat">${esc(t("tools.allow.chat"))}</button>`}<button type="button" class="st-btn" data-choice="no">${esc(t(waits.kind === "result" ? "tools.hold_back" : "tools.refuse"))}</button></div></div>` : "";
      return `<details class="tl-call tl-${state}" data-call="${esc(call.id)}" ${open}><summary><b>${esc(call.name || t("tools.unreadable"))}</b><code>${esc(short(call.arguments))}</code><span class="st-tag">${esc(t(`tools.state.${state}`))}</span>${result ? `<small>${esc(t("tools.seconds", { s: studio.num(result.seconds, 2) }))}</small>` : ""}</summary>
        <div class="tl-open"><h3>${esc(t("tools.arguments"))}</h3><pre class="st-code">${esc(json(call.arguments))}</pre>${result ? `<h3>${esc(t("tools.result"))}</h3>${flags(result.flags)}<pre class="st-code">${esc(result.content)}</pre>` : ""}${result?.cut ? `<p class="st-muted">${esc(t("tools.cut", { n: result.cut.toLocaleString("en") }))}</p>` : ""}</div></details>${ask}`;
    }

    foot() {
      const { state, error } = this.chat;
      if (error) return `<div class="st-finding st-level-error" role="alert"><b>${esc(error.message)}</b><span>${esc(error.hint || "")}</span></div>`;
      return ["loading", "calling"].includes(state) ? `<p class="st-working" role="status">${esc(t(`tools.now.${state}`))}</p>` : "";
    }

    buttons() {
      const busy = this.chat && this.chat.state !== "resting";
      this.$("[data-send]").hidden = Boolean(busy);
      this.$("[data-stop]").hidden = !busy;
    }

    /* ---- switches */

    side() {
      const f = this.facts, s = this.setup, on = (name) => (s.tools.includes(name) ? "checked" : "");
      const tool = (one) => `<li><label class="st-check"><input type="checkbox" data-tool="${esc(one.name)}" ${on(one.name)}><b>${esc(one.name)}</b></label><p class="st-muted">${esc(one.about)}</p></li>`;
      const option = (value, label, now) => `<option value="${esc(value)}" ${value === now ? "selected" : ""}>${esc(label)}</option>`;
      const server = (one) => `<section class="tl-server"><header><h3>${esc(one.name)}</h3><span class="st-tag">${esc(t(`tools.kind.${one.kind}`))}</span><button type="button" class="st-link" data-edit="${one.id}">${esc(t("tools.edit"))}</button><button type="button" class="st-link" data-remove="${one.id}">${esc(t("tools.remove"))}</button></header><code>${esc(one.command || one.url)}</code>${one.secrets.length ? `<p class="st-muted">${esc(t("tools.secrets.has", { names: one.secrets.join(", ") }))}</p>` : ""}
        <ul>${f.tools.filter((x) => x.server === one.id).map(tool).join("") || `<li class="st-muted">${esc(t("tools.server.none"))}</li>`}</ul></section>`;
      this.$(".tl-side").innerHTML = `<h2>${esc(t("tools.list"))}</h2><ul class="tl-list">${f.tools.filter((x) => x.source === "studio").map(tool).join("")}</ul>
        <label class="rt-field"><span>${esc(t("tools.collection"))}</span><select data-set="collection">${option("", t("tools.collection.none"), s.collection)}${f.collections.map((c) => option(c.id, c.name, s.collection)).join("")}</select></label>
        <h2>${esc(t("tools.mcp"))}</h2><p class="st-muted">${esc(t(f.mcp ? "tools.mcp.lead" : "tools.mcp.shared"))}</p>${f.servers.map(server).join("")}${f.mcp ? `<button type="button" class="st-btn st-small" data-add>${esc(t("tools.mcp.add"))}</button>` : ""}
        <details class="tl-more"><summary>${esc(t("tools.more"))}</summary><label class="rt-field"><span>${esc(t("tools.system"))}</span><textarea data-set="system" rows="3">${esc(s.system)}</textarea></label>
          <label class="rt-field"><span>${esc(t("tools.calls"))}</span><select data-set="calls">${["auto", "native", "text"].map((v) => option(v, t(`tools.calls.${v}`), s.calls)).join("")}</select></label>
          <label class="rt-field"><span>${esc(t("tools.rounds"))}</span><input data-set="rounds" type="number" min="1" max="20" value="${esc(s.rounds)}"></label></details>`;
    }

    change(event) {
      const { tool, set } = event.target.dataset;
      if (tool) this.setup.tools = event.target.checked ? [...this.setup.tools, tool] : this.setup.tools.filter((name) => name !== tool);
      else if (set) this.setup[set] = set === "rounds" ? Number(event.target.value) : event.target.value;
      else if (event.target.matches(".tl-chats")) return this.pick(event.target.value);
      else return;
      if (set === "collection" && event.target.value && !this.setup.tools.includes("search_documents")) { this.setup.tools.push("search_documents"); this.side(); }
      this.keep();
    }

    async pick(id) {
      clearInterval(this.timer);
      this.chat = null;
      sessionStorage.removeItem(LAST);
      if (id) await this.open(id);
      this.bar();
      this.side();
      this.log(true);
    }

    async click(event) {
      const button = event.target.closest("button"), d = button?.dataset;
      if (!d) return;
      const call = async (name, values) => { try { return await studio.call(name, values); } catch (error) { studio.failed(error); return null; } };
      if (d.new !== undefined) { await this.pick(""); this.$("textarea").focus(); }
      if (d.example !== undefined) { this.$("textarea").value = button.textContent; this.send(); }
      if (d.choice) { const found = await call("tools_decide", { id: this.chat.id, call: this.chat.pending?.id, choice: d.choice }); if (found) { this.chat = found; this.log(); } }
      if (d.stop !== undefined) { const found = await call("tools_stop", { id: this.chat.id }); if (found) { this.chat = found; this.log(); } }
      if (d.delete !== undefined && this.chat && (await studio.ask(t("tools.delete"), `<p>${esc(t("tools.delete.sure"))}</p>`, t("tools.delete"), true)) !== null) { await call("tools_delete", { id: this.chat.id }); this.facts.chats = this.facts.chats.filter((c) => c.id !== this.chat.id); this.pick(""); }
      if (d.add !== undefined) this.server(null);
      if (d.edit) this.server(this.facts.servers.find((one) => one.id === d.edit));
      if (d.remove && (await studio.ask(t("tools.remove"), `<p>${esc(t("tools.remove.sure"))}</p>`, t("tools.remove"), true)) !== null) { await call("mcp_remove", { id: d.remove }); this.load(); }
    }

    /** Add or change a server; the dialog stays open with what is wrong. */
    server(one) {
      const dialog = document.createElement("dialog");
      dialog.className = "st-dialog tl-dialog";
      dialog.setAttribute("aria-label", t("tools.mcp.add"));
      const secret = (name) => `<div class="tl-secret"><input name="secret" placeholder="${esc(t("tools.secret.name"))}" aria-label="${esc(t("tools.secret.name"))}" value="${esc(name)}" autocomplete="off"><input name="value" type="password" placeholder="${esc(t(name ? "tools.secret.kept" : "tools.secret.value"))}" aria-label="${esc(t("tools.secret.value"))}" autocomplete="new-password"></div>`;
      dialog.innerHTML = `<form><h2>${esc(t(one ? "tools.edit" : "tools.mcp.add"))}</h2><div class="st-dialog-body"><p class="st-finding st-level-warning"><b>${esc(t("tools.risk"))}</b><span>${esc(t("tools.risk.text"))}</span></p>
        <label class="rt-field"><span>${esc(t("tools.server.name"))}</span><input name="name" maxlength="40" value="${esc(one?.name || "")}" autocomplete="off"></label>
        <label class="rt-field"><span>${esc(t("tools.server.kind"))}</span><select name="kind">${["stdio", "http"].map((k) => `<option value="${k}" ${k === one?.kind ? "selected" : ""}>${esc(t(`tools.kind.${k}.long`))}</option>`).join("")}</select></label>
        <label class="rt-field" data-for="stdio"><span>${esc(t("tools.command"))}</span><input name="command" maxlength="4000" spellcheck="false" value="${esc(one?.command || "")}" placeholder="python -m my_server"></label>
        <label class="rt-field" data-for="http"><span>${esc(t("tools.url"))}</span><input name="url" maxlength="2000" spellcheck="false" value="${esc(one?.url || "")}" placeholder="https://host/mcp"></label>
        <div class="tl-secrets"><span class="st-label">${esc(t("tools.secrets"))}</span><p class="st-muted">${esc(t("tools.secrets.help"))}</p>${(one?.secrets || []).map(secret).join("")}${secret("")}</div>
        <label class="st-check"><input type="checkbox" name="understood">${esc(t("tools.understood"))}</label><p class="st-error" role="alert" hidden></p></div>
        <footer><button type="button" class="st-btn" data-cancel>${esc(t("action.cancel"))}</button><button type="submit" class="st-btn st-primary">${esc(t("tools.connect"))}</button></footer></form>`;
      const form = dialog.querySelector("form"), told = dialog.querySelector(".st-error"), submit = dialog.querySelector("[type=submit]");
      const show = () => { for (const place of dialog.querySelectorAll("[data-for]")) place.hidden = place.dataset.for !== form.elements.kind.value; };
      form.elements.kind.onchange = show;
      show();
      dialog.querySelector("[data-cancel]").onclick = () => dialog.close();
      dialog.onclose = () => dialog.remove();
      form.onsubmit = async (event) => {
        event.preventDefault();
        const secrets = {};
        for (const row of dialog.querySelectorAll(".tl-secret")) { const name = row.querySelector("[name=secret]").value.trim(); if (name) secrets[name] = row.querySelector("[name=value]").value; }
        const e = form.elements;
        submit.disabled = true;
        told.hidden = true;
        try {
          await studio.call("mcp_add", { values: { id: one?.id, name: e.name.value, kind: e.kind.value, command: e.command.value, url: e.url.value, secrets }, understood: e.understood.checked });
          dialog.close();
          this.load();
        } catch (error) { told.hidden = false; told.textContent = [error.message, error.hint].filter(Boolean).join(" "); }
        submit.disabled = false;
      };
      document.body.append(dialog);
      dialog.showModal();
    }
  }

  studio.parts.tools = (context) => new Tools(context);
})();
