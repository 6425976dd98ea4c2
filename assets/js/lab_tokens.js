/* The tokenizer view of the Chat tab: one text under several tokenizers, in columns, with what each language costs. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KEY = "studio-lab-tokens", MOST = 4, SHADES = 6;
  const kept = () => { try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch { return {}; } };
  const visible = (text) => esc(text).replace(/ /g, '<i class="st-sp">·</i>').replace(/\n/g, '<i class="st-nl">↵</i>\n').replace(/\t/g, '<i class="st-sp">→</i>');

  class Tokens {
    constructor({ root }) {
      const before = kept();
      Object.assign(this, { root, refs: before.refs?.length ? before.refs : ["starter"], asked: 0 });
      root.innerHTML = `<div class="lt"><header><p class="st-muted">${esc(t("lab.tokens.lead"))}</p>
        <textarea id="lab-text" rows="3" maxlength="20000" spellcheck="false" aria-label="${esc(t("lab.tokens.text"))}"></textarea>
        <div class="lt-bar"><label class="st-check"><input type="checkbox" data-template> ${esc(t("lab.tokens.template"))}</label><label class="st-check"><input type="checkbox" data-ids> ${esc(t("lab.tokens.ids"))}</label>
          <button type="button" class="st-btn st-small" data-add>${esc(t("lab.tokens.add"))}</button></div></header><div class="lt-cols"></div><section class="lt-languages" hidden></section></div>`;
      this.$ = (selector) => root.querySelector(selector);
      this.$("textarea").value = before.text ?? t("lab.tokens.example");
      this.$("[data-template]").checked = Boolean(before.template);
      this.$("[data-ids]").checked = Boolean(before.ids);
      this.$("textarea").oninput = () => this.soon();
      this.$("[data-template]").onchange = () => this.ask();
      this.$("[data-ids]").onchange = () => { this.keep(); this.draw(); };
      this.$(".lt-cols").onclick = (event) => { const i = event.target.closest("[data-drop]")?.dataset.drop; if (i !== undefined) { this.refs.splice(Number(i), 1); this.ask(); } };
      new studio.Picker(this.$("[data-add]"), () => (this.models || []).filter((m) => !this.refs.includes(m.ref)), (ref) => { if (this.refs.length < MOST && !this.refs.includes(ref)) { this.refs.push(ref); this.ask(); } });
      studio.plays.tokens = { shown: () => this.shown() };
      if (studio.playing() === "tokens") this.shown();
    }

    async shown() {
      try { this.models = await studio.call("lab_models"); } catch (error) { return studio.failed(error); }
      if (!this.found) this.ask();
    }

    keep() { try { localStorage.setItem(KEY, JSON.stringify({ refs: this.refs, text: this.$("textarea").value, template: this.$("[data-template]").checked, ids: this.$("[data-ids]").checked })); } catch { /* nothing is lost but a convenience */ } }

    soon() { clearTimeout(this.wait); this.wait = setTimeout(() => this.ask(), 300); }

    async ask() {
      this.keep();
      this.$("[data-add]").disabled = this.refs.length >= MOST;
      const text = this.$("textarea").value, mine = ++this.asked;
      if (!text || !this.refs.length) { this.found = []; return this.draw(); }
      this.$(".lt-cols").setAttribute("aria-busy", "true");
      if (!this.found?.length) this.$(".lt-cols").innerHTML = `<p class="st-working" role="status">${esc(t("lab.tokens.working"))}</p>`;
      try {
        const found = await studio.call("lab_tokens", { text, models: this.refs, template: this.$("[data-template]").checked });
        if (mine !== this.asked) return;
        this.found = found;
        this.draw();
      } catch (error) { if (mine === this.asked) this.$(".lt-cols").innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`; }
      if (mine === this.asked) this.$(".lt-cols").removeAttribute("aria-busy");
    }

    draw() {
      const ids = this.$("[data-ids]").checked, asked = this.$("[data-template]").checked;
      this.$(".lt-cols").innerHTML = (this.found || []).map((one, i) => this.column(one, i, ids, asked)).join("");
      this.languages((this.found || []).filter((one) => !one.error));
    }

    column(one, i, ids, asked) {
      const head = `<header><b title="${esc(one.ref)}">${esc(one.label)}</b>${this.refs.length > 1 ? `<button type="button" class="st-icon" data-drop="${i}" aria-label="${esc(t("lab.tokens.drop", { name: one.label }))}">×</button>` : ""}</header>`;
      if (one.error) return `<article>${head}<div class="st-empty st-is-bad"><b>${esc(one.error)}</b><p>${esc(one.hint)}</p></div></article>`;
      const tile = (key, value) => `<div><dt>${esc(t(`lab.tokens.${key}`))}</dt><dd>${value}</dd></div>`;
      const token = (tok, n) => `<span class="lt-t${tok.special ? " lt-special" : ""}" data-c="${n % SHADES}" title="${esc(t("lab.tokens.one", { id: tok.id }))}">${visible(tok.text) || "<i>▯</i>"}${ids ? `<small>${tok.id}</small>` : ""}</span>`;
      return `<article>${head}<dl class="st-tiles">${tile("count", studio.num(one.count))}${tile("bytes", studio.num(one.bytes / one.count, 3))}${tile("characters", studio.num(one.characters / one.count, 3))}${tile("vocab", one.vocab.toLocaleString("en"))}</dl>
        ${asked && !one.template ? `<p class="st-muted">${esc(t("lab.tokens.no_template"))}</p>` : ""}
        <div class="lt-text${ids ? " lt-ids" : ""}" tabindex="0" aria-label="${esc(one.label)}">${one.tokens.map(token).join("")}</div>${one.shown < one.count ? `<p class="st-muted">${esc(t("lab.tokens.more", { n: studio.num(one.shown), all: studio.num(one.count) }))}</p>` : ""}
        <details><summary>${esc(t("lab.tokens.specials"))} <span class="st-count">${one.specials.length}</span></summary>${one.specials.length ? `<ul>${one.specials.map((s) => `<li><code>${esc(s.text)}</code><small>${s.id}</small>${s.role ? `<span class="st-tag">${esc(s.role)}</span>` : ""}</li>`).join("")}</ul>` : `<p class="st-muted">${esc(t("lab.tokens.specials.none"))}</p>`}</details></article>`;
    }

    languages(found) {
      const place = this.$(".lt-languages");
      place.hidden = !found.length;
      if (!found.length) return;
      const most = Math.max(...found.flatMap((one) => Object.values(one.languages)));
      const cell = (one, name) => `<td><i style="width:${((one.languages[name] / most) * 100).toFixed(1)}%"></i><span>${one.languages[name]}</span></td>`;
      place.innerHTML = `<h2>${esc(t("lab.tokens.languages"))}</h2><p class="st-muted">${esc(t("lab.tokens.languages.help"))}</p><div class="ar-scroll"><table><thead><tr><td></td>${found.map((one) => `<th scope="col">${esc(one.label)}</th>`).join("")}</tr></thead>
        <tbody>${Object.keys(found[0].languages).map((name) => `<tr><th scope="row">${esc(name)}</th>${found.map((one) => cell(one, name)).join("")}</tr>`).join("")}</tbody></table></div>`;
    }
  }
  studio.parts.labtokens = (context) => new Tokens(context);
})();
