/* "Runs on": this machine, a Ray cluster or Hugging Face Jobs, with what the chosen place asks for. Remembered by the browser. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const PLACES = ["local", "ray", "hf_jobs"], KEY = "studio-place";

  const kept = () => { try { return JSON.parse(localStorage.getItem(KEY)) || {}; } catch { return {}; } };

  class Place {
    constructor({ root, props }) {
      Object.assign(this, { root, props, offers: {}, cost: null, agreed: false, asked: 0 });
      this.memory = { name: "local", options: {}, ...kept() };
      root.innerHTML = `<label class="bk-where"><span class="st-label">${esc(t("backend.where"))}</span><select data-place>${PLACES.map((name) =>
        `<option value="${name}">${esc(t(`backend.${name}`))}</option>`).join("")}</select></label>
        <div class="bk-fields"></div><div class="bk-news" role="status" aria-live="polite"></div>`;
      this.select = root.querySelector("[data-place]");
      this.fields = root.querySelector(".bk-fields");
      this.news = root.querySelector(".bk-news");
      this.select.onchange = () => this.choose(this.select.value);
      this.fields.addEventListener("input", () => this.typed());
      window.addEventListener("studio:form", (event) => event.detail === props.tab && this.look());
      this.choose(PLACES.includes(this.memory.name) ? this.memory.name : "local");
    }

    get name() { return this.select.value; }

    async choose(name) {
      this.select.value = name;
      this.fields.innerHTML = this.news.innerHTML = "";
      this.agreed = false;
      this.keep({ name });
      this.send();
      if (name === "local") return;
      this.news.innerHTML = `<p class="st-note">${esc(t("backend.asking"))}</p>`;
      try { this.offers[name] = await studio.call("backends", { name }); }
      catch (error) { if (this.name === name) this.say(error.message, error.hint); return; }
      if (this.name === name) this.draw();
    }

    draw() {
      const offer = this.offers[this.name], mine = this.memory.options[this.name] || {};
      this.fields.innerHTML = `<p class="st-note">${esc(offer.summary)}</p>`;
      if (offer.unavailable) return this.say(offer.unavailable);
      if (offer.install) return this.offerInstall(offer.install);
      this.fields.innerHTML += offer.fields.map((spec) => {
        const id = `${this.props.tab}-place-${spec.name}`, value = mine[spec.name] ?? spec.default;
        const attributes = `id="${id}" data-name="${esc(spec.name)}" aria-describedby="${id}-help"`;
        const control = spec.type === "choice"
          ? `<select ${attributes}>${spec.choices.map(([v, title]) => `<option value="${esc(v)}"${v === value ? " selected" : ""}>${esc(title)}</option>`).join("")}</select>`
          : spec.type === "bool" ? `<input type="checkbox" ${attributes}${value ? " checked" : ""}>`
          : `<input type="text" autocomplete="off" spellcheck="false" ${spec.type === "str" ? "" : 'inputmode="decimal"'} ${attributes} value="${esc(value)}">`;
        return `<div class="bk-field${["address", "storage", "flavor"].includes(spec.name) ? " bk-wide" : ""}"><label for="${id}">${esc(spec.title)}</label>${control}<small id="${id}-help">${esc(spec.help)}</small></div>`;
      }).join("");
      this.typed();
    }

    options() {
      const found = {};
      for (const control of this.fields.querySelectorAll("[data-name]")) found[control.dataset.name] = control.type === "checkbox" ? control.checked : control.value.trim();
      return found;
    }

    typed() {
      this.agreed = false;
      this.keep({ options: { ...this.memory.options, [this.name]: this.options() } });
      this.send();
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.look(), 400);
    }

    /** What it would mean: how much is sent, what it can cost. */
    async look() {
      const values = studio.forms[this.props.tab]?.values, number = ++this.asked;
      if (this.name === "local" || !values || !this.fields.querySelector("[data-name]")) return;
      try {
        const found = await studio.call("backend_check", { values, backend: { name: this.name, ...this.options() } });
        if (number !== this.asked) return;
        if (found.refused) return this.say(found.refused.message, found.refused.hint);
        const before = this.cost;
        this.cost = found.cost;
        if (before !== found.cost) this.agreed = false;
        this.news.innerHTML = `<p class="st-note">${esc(found.size ? t("backend.sent", { size: studio.bytes(found.size) }) : t("backend.nothing"))} ${found.notes.map(esc).join(" ")}</p>${found.cost == null ? ""
          : `<label class="bk-cost"><input type="checkbox" data-agree${this.agreed ? " checked" : ""}> <span>${esc(t("backend.cost", { cost: found.cost < 0.1 ? found.cost.toFixed(3) : found.cost.toFixed(2) }))}</span></label>`}`;
        const agree = this.news.querySelector("[data-agree]");
        if (agree) agree.onchange = () => { this.agreed = agree.checked; this.send(); };
        this.send();
      } catch (error) { if (number === this.asked) this.say(error.message, error.hint); }
    }

    say(message, hint = "") {
      this.news.innerHTML = `<p class="bk-refused"><b>${esc(message)}</b> ${esc(hint)}</p>`;
    }

    offerInstall(part) {
      this.news.innerHTML = `<button type="button" class="st-btn">${esc(t("estimate.install", part))}</button>`;
      this.news.firstChild.onclick = async (event) => { if (await studio.installPart(this.props.tab, event.target, part)) this.choose(this.name); };
    }

    keep(change) {
      Object.assign(this.memory, change);
      try { localStorage.setItem(KEY, JSON.stringify(this.memory)); } catch { /* a browser that keeps nothing */ }
    }

    send() {
      this.props.value = { name: this.name, ...(this.name === "local" ? {} : this.options()), ...(this.agreed ? { agreed: this.cost } : {}) };
    }
  }
  /** Beside "Resume" of a run that computed elsewhere: the other place may be gone for good. */
  studio.goOnHere = (banner, act) => {
    const button = Object.assign(document.createElement("button"), { type: "button", className: "st-btn", textContent: t("backend.here") });
    button.dataset.here = "";
    button.onclick = act;
    banner.append(button);
  };

  studio.parts.backend = (context) => new Place(context);
})();
