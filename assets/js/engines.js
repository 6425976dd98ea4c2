/* The engines view of the Chat tab: what a model would take before it is loaded, what is loaded now, and what is served to other programs. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;

  class Engines {
    constructor({ root }) {
      Object.assign(this, { root, ref: null, needs: null, view: null, open: {} });
      root.innerHTML = `<div class="lt en"><header><p class="st-muted">${esc(t("engines.lead"))}</p></header>
        <section aria-labelledby="en-load"><h2 id="en-load">${esc(t("engines.load"))}</h2><div class="en-load"><button type="button" class="st-btn" data-pick>${esc(t("engines.pick"))}</button><div class="en-needs"></div></div></section>
        <section aria-labelledby="en-loaded"><h2 id="en-loaded">${esc(t("engines.loaded"))}</h2><p class="st-muted">${esc(t("engines.loaded.about"))}</p><div class="en-list"></div></section>
        <section aria-labelledby="en-served"><h2 id="en-served">${esc(t("engines.served"))}</h2><p class="st-muted">${esc(t("engines.served.about"))}</p><div class="en-served"></div></section>
        <section class="en-ended" aria-labelledby="en-ended" hidden><h2 id="en-ended">${esc(t("engines.ended"))}</h2><ul></ul></section></div>`;
      this.$ = (selector) => root.querySelector(selector);
      new studio.Picker(this.$("[data-pick]"), () => this.models || [], (ref) => this.choose(ref));
      root.addEventListener("click", (event) => this.click(event));
      studio.plays.engines = { shown: () => this.shown() };
      if (studio.playing() === "engines") this.shown();
      setInterval(() => { if (root.isConnected && root.offsetParent && document.visibilityState === "visible") this.look(); }, 3000);
    }

    async shown() {
      await this.look(true);
      if (!this.ref && this.models?.length) this.choose(this.models[0].ref);
    }

    async look(models = false) {
      if (this.looking) return;
      this.looking = true;
      try {
        const view = await studio.call("engines_view", { models });
        this.models = view.models || this.models;
        this.view = view;
        this.draw();
        const loaded = this.needs && view.engines.some((e) => e.base === this.ref && e.state === "ready");
        if (loaded && !this.needs.loaded) this.choose(this.ref);
      } catch (error) { if (models) studio.failed(error); } finally { this.looking = false; }
    }

    async choose(ref) {
      Object.assign(this, { ref, needs: null });
      const button = this.$("[data-pick]");
      button.dataset.ref = ref;
      button.textContent = this.models?.find((m) => m.ref === ref)?.label || ref;
      this.$(".en-needs").innerHTML = `<p class="st-working" role="status">${esc(t("engines.working"))}</p>`;
      try { this.needs = await studio.call("engine_needs", { ref }); } catch (error) {
        this.$(".en-needs").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
        return;
      }
      if (this.ref === ref) this.drawNeeds();
    }

    drawNeeds() {
      const n = this.needs, size = (v) => (v == null ? "?" : studio.bytes(v));
      if (n.kind === "remote") { this.$(".en-needs").innerHTML = `<p>${esc(t("engines.remote"))}</p>`; return; }
      const most = Math.max(n.total || 0, n.free || 0, 1), part = (key, v) => `<i class="en-${key}" style="width:${((100 * (v || 0)) / most).toFixed(2)}%" title="${esc(t(`engines.${key}`))}: ${size(v)}"></i>`;
      const row = (key, v, more = "") => `<div><dt><i class="en-${key}"></i>${esc(t(`engines.${key}`))}</dt><dd>${size(v)}${more ? `<small>${esc(more)}</small>` : ""}</dd></div>`;
      this.$(".en-needs").innerHTML = `<div class="en-bar" role="img" aria-label="${esc(t("engines.total", { total: size(n.total), free: size(n.free) }))}">${part("weights", n.weights)}${part("cache", n.cache)}${part("overhead", n.overhead)}${n.free ? `<b style="left:${((100 * n.free) / most).toFixed(2)}%"></b>` : ""}</div>
        <p class="en-total ${n.fits ? "" : "st-is-bad"}">${esc(t(n.loaded ? "engines.total.loaded" : n.fits ? "engines.total" : "engines.total.not", { total: size(n.total), free: size(n.free) }))}</p>
        <dl class="en-parts">${row("weights", n.weights)}${row("cache", n.cache, n.context ? t("engines.context", { n: studio.num(n.context, 7) }) : "")}${row("overhead", n.overhead, t(n.measured ? "engines.overhead.measured" : "engines.overhead.typical"))}</dl>
        <div class="en-acts"><button type="button" class="st-btn st-primary" data-act="load" ${n.loaded ? "disabled" : ""}>${esc(t("engines.act.load"))}</button>${this.view?.may_serve ? `<button type="button" class="st-btn" data-act="serve">${esc(t("engines.act.serve"))}</button>` : ""}</div>`;
    }

    draw() {
      const { engines, served, ended } = this.view;
      const state = (s) => `<span class="st-tag en-${esc(s)}">${esc(t(`engines.state.${s}`))}</span>`;
      const idle = (e) => (e.state !== "ready" ? "" : e.active ? t("engines.active", { n: e.active }) : t("engines.idle", { time: studio.duration(e.idle_seconds) }));
      this.$(".en-list").innerHTML = engines.length ? engines.map((e) => `<article><div><b>${esc(e.label)}</b>${state(e.state)}</div><span class="en-size">${studio.bytes(e.rss_bytes)}</span><span class="st-muted">${esc(idle(e))}${e.adapters.length ? ` · ${esc(t("engines.adapters", { n: e.adapters.length }))}` : ""}</span><button type="button" class="st-btn st-small" data-act="unload" data-id="${esc(e.id)}" ${e.active ? "disabled" : ""}>${esc(t("engines.act.unload"))}</button></article>`).join("") : `<p class="st-muted">${esc(t("engines.none"))}</p>`;
      const place = this.$(".en-served");
      if (!place.contains(document.activeElement) || place.dataset.drawn !== this.key(served)) {
        place.dataset.drawn = this.key(served);
        place.innerHTML = served.length ? served.map((s) => this.served(s, state, idle)).join("") : `<p class="st-muted">${esc(t(this.view.may_serve ? "engines.served.none" : "engines.served.space"))}</p>`;
      }
      this.$(".en-ended").hidden = !ended.length;
      this.$(".en-ended ul").innerHTML = ended.slice(0, 8).map((e) => `<li><b>${esc(e.label)}</b> ${esc(t(`engines.why.${e.why.startsWith("run:") ? "run" : e.why}`, { size: studio.bytes(e.bytes) }))} <span class="st-muted">${esc(studio.ago(e.at))}</span></li>`).join("");
    }

    key(served) { return JSON.stringify([served.map((s) => [s.id, s.state, s.port]), Object.keys(this.open)]); }

    served(s, state, idle) {
      const open = this.open[s.id];
      return `<article data-id="${esc(s.id)}"><header><div><b>${esc(s.name)}</b>${state(s.state)}<span class="st-muted">${esc(s.label)}</span></div><div class="en-acts"><button type="button" class="st-btn st-small" data-act="about" aria-expanded="${Boolean(open)}" ${s.address ? "" : "disabled"}>${esc(t("engines.act.about"))}</button><button type="button" class="st-btn st-small st-danger" data-act="stop">${esc(t("engines.act.stop"))}</button></div></header>
        ${s.address ? `<p><code>${esc(s.address)}</code> <span class="st-muted">${studio.bytes(s.rss_bytes)} · ${esc(idle(s))}</span></p>` : ""}${s.error ? `<p class="st-is-bad">${esc(s.error)} ${esc(s.hint)}</p>` : ""}
        ${open ? `<div class="en-about"><p>${esc(t("engines.key.about", { variable: s.key_variable }))}</p><div class="en-key"><code>${esc(open.key || "•".repeat(24))}</code>${open.key ? `<button type="button" class="st-btn st-small" data-act="copykey">${esc(t("engines.act.copy"))}</button>` : `<button type="button" class="st-btn st-small" data-act="key">${esc(t("engines.act.key"))}</button>`}</div>
        <div class="st-views" role="tablist" aria-label="${esc(t("engines.act.about"))}">${["curl", "python", "openai"].map((kind) => `<button type="button" role="tab" data-kind="${kind}" aria-selected="${open.kind === kind}">${esc(t(`engines.snippet.${kind}`))}</button>`).join("")}</div>
        <pre class="st-code" tabindex="0">${esc(open.snippets[open.kind])}</pre><button type="button" class="st-btn st-small" data-act="copy">${esc(t("engines.act.copy"))}</button></div>` : ""}</article>`;
    }

    async click(event) {
      const button = event.target.closest("button"), id = button?.closest("article")?.dataset.id, act = button?.dataset.act;
      if (button?.dataset.kind) { this.open[id].kind = button.dataset.kind; return this.again(); }
      if (!act) return;
      try {
        if (act === "load") { button.disabled = true; await studio.call("engine_load", { ref: this.ref }); studio.say(t("engines.loading")); await this.look(); }
        else if (act === "serve") return this.serve();
        else if (act === "unload") { button.disabled = true; await studio.call("chat_unload", { id: button.dataset.id }); await this.look(); if (this.ref) this.choose(this.ref); }
        else if (act === "about") { if (this.open[id]) delete this.open[id]; else this.open[id] = { kind: "curl", ...(await studio.call("serve_about", { id })) }; this.again(); }
        else if (act === "key") { Object.assign(this.open[id], await studio.call("serve_about", { id, key: true })); this.again(); }
        else if (act === "copy") await studio.copy(this.open[id].snippets[this.open[id].kind], button);
        else if (act === "copykey") await studio.copy(this.open[id].key, button);
        else if (act === "stop") {
          const name = this.view.served.find((s) => s.id === id)?.name || "";
          if (await studio.ask(t("engines.stop", { name }), `<p>${esc(t("engines.stop.about"))}</p>`, t("engines.act.stop"), true)) { await studio.call("serve_stop", { id }); delete this.open[id]; this.again(await this.look()); }
        }
      } catch (error) { studio.failed(error); if (act === "load" || act === "unload") button.disabled = false; }
    }

    again() { this.$(".en-served").dataset.drawn = ""; this.draw(); }

    async serve() {
      const label = this.needs.label || "", name = label.replace(/[^\w.:-]+/g, "-").replace(/^[-.:_]+|[-.:_]+$/g, "").slice(0, 64);
      const values = await studio.ask(t("engines.serve", { name: label }), `<p>${esc(t("engines.serve.about"))}</p>
        <label class="en-field"><span>${esc(t("engines.serve.name"))}</span><input name="name" maxlength="64" required value="${esc(name)}"></label>
        <label class="en-field"><span>${esc(t("engines.serve.port"))}</span><input name="port" inputmode="numeric" pattern="[0-9]*" maxlength="5" placeholder="${esc(t("engines.serve.port.any"))}"></label>`, t("engines.act.serve"));
      if (!values) return;
      try {
        const made = await studio.call("serve_start", { ref: this.ref, ...values });
        this.open[made.id] = { kind: "curl", key: made.key, ...(await studio.call("serve_about", { id: made.id })) };
        await this.look();
        this.follow(made.id);
      } catch (error) { studio.failed(error); }
    }

    /** The address is known only when the model is loaded: then the snippets have it, too. */
    follow(id) {
      const wait = setInterval(async () => {
        const one = this.view.served.find((s) => s.id === id);
        if (one?.state === "loading") return this.look();
        clearInterval(wait);
        if (one?.state === "ready" && this.open[id]) { Object.assign(this.open[id], await studio.call("serve_about", { id })); this.again(); studio.say(t("engines.served.ready", { name: one.name })); }
      }, 700);
    }
  }
  studio.parts.engines = (context) => new Engines(context);
})();
