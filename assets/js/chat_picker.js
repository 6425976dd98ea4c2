/* A button that opens a searchable list of models; an address or a folder may be typed. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const GROUPS = [["chat.group.starter", (m) => m.kind === "starter"], ["chat.group.made", (m) => m.kind === "model" || m.kind === "adapter"], ["chat.group.checkpoints", (m) => m.kind === "checkpoint"]];
  const TYPED = /^(https?:\/\/\S+|hub:\S+|[~/.]\S*|run:\S+|library:\S+)$/i;
  let made = 0;

  class Picker {
    /** onpick(ref) is told what was chosen; `hint` says below the list what else may be typed, if `typed` fits it; `groups` are [[key of its words, belongs]]. */
    constructor(button, models, onpick, { hint = "chat.pick.hint", typed = TYPED, groups = GROUPS } = {}) {
      Object.assign(this, { button, models, onpick, hint, typed, groups, id: `ch-pick-${++made}` });
      button.setAttribute("aria-haspopup", "listbox");
      button.setAttribute("aria-expanded", "false");
      button.onclick = () => (this.panel ? this.close() : this.open());
    }

    open() {
      document.querySelector(".ch-picker")?.close();
      const panel = (this.panel = document.createElement("div"));
      panel.className = "ch-picker";
      panel.close = () => this.close();
      panel.innerHTML = `<input type="text" role="combobox" aria-expanded="true" aria-controls="${this.id}" aria-label="${esc(t("chat.pick"))}" placeholder="${esc(t("chat.pick.placeholder"))}" spellcheck="false" autocomplete="off">
        <div role="listbox" id="${this.id}" aria-label="${esc(t("chat.models"))}"></div><p>${esc(t(this.hint))}</p>`;
      (this.button.closest("dialog") || document.body).append(panel);  // what lies outside an open dialog cannot be clicked
      const at = this.button.getBoundingClientRect(), width = Math.min(400, innerWidth - 16);
      panel.style.width = `${width}px`;
      panel.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
      panel.style.top = `${at.bottom + 4}px`;
      panel.style.setProperty("--room", `${innerHeight - at.bottom - 110}px`);
      this.button.setAttribute("aria-expanded", "true");
      this.input = panel.querySelector("input");
      this.box = panel.querySelector("[role=listbox]");
      this.input.oninput = () => this.draw();
      this.input.onkeydown = (event) => this.key(event);
      this.box.onmousedown = (event) => event.preventDefault();
      this.box.onclick = (event) => { const row = event.target.closest("[role=option]"); if (row) this.pick(row.dataset.ref); };
      this.outside = (event) => { if (!panel.contains(event.target) && !this.button.contains(event.target)) this.close(false); };
      document.addEventListener("pointerdown", this.outside, true);
      this.moved = () => this.close(false);
      addEventListener("resize", this.moved);
      this.draw();
      this.input.focus();
    }

    close(focus = true) {
      if (!this.panel) return;
      document.removeEventListener("pointerdown", this.outside, true);
      removeEventListener("resize", this.moved);
      this.panel.remove();
      this.panel = null;
      this.button.setAttribute("aria-expanded", "false");
      if (focus) this.button.focus();
    }

    draw() {
      const text = this.input.value.trim(), low = text.toLowerCase(), now = this.button.dataset.ref;
      const fits = (m) => !low || `${m.label} ${m.ref} ${m.detail || ""}`.toLowerCase().includes(low);
      let html = "";
      for (const [key, belongs] of this.groups) {
        const rows = this.models().filter((m) => belongs(m) && fits(m)).slice(0, 60);
        if (rows.length) html += `<div class="ch-group" role="presentation">${esc(t(key))}</div>` + rows.map((m) => this.row(m.ref, m.label, m.detail || "", m.kind === "adapter" ? t("item.adapter") : "", m.ref === now)).join("");
      }
      if (this.typed.test(text)) html += `<div class="ch-group" role="presentation">${esc(t("chat.group.typed"))}</div>` + this.row(text, text, t(/^http/i.test(text) ? "chat.pick.address" : "chat.pick.path"), "", false);
      this.box.innerHTML = html || `<div class="ch-none">${esc(t("chat.pick.none"))}</div>`;
      [...this.box.querySelectorAll("[role=option]")].forEach((row, i) => (row.id = `${this.id}-${i}`));
      this.at(low ? 0 : Math.max(0, this.rows().findIndex((row) => row.getAttribute("aria-selected") === "true")));
    }

    row(ref, label, detail, tag, chosen) {
      return `<div role="option" data-ref="${esc(ref)}" aria-selected="${chosen}"><b>${esc(label)}</b>${tag ? `<span class="st-tag">${esc(tag)}</span>` : ""}<small>${esc(detail)}</small></div>`;
    }

    rows() { return [...this.box.querySelectorAll("[role=option]")]; }

    at(index) {
      const rows = this.rows();
      this.index = rows.length ? (index + rows.length) % rows.length : -1;
      rows.forEach((row, i) => row.classList.toggle("ch-at", i === this.index));
      rows[this.index]?.scrollIntoView({ block: "nearest" });
      this.input.setAttribute("aria-activedescendant", rows[this.index]?.id || "");
    }

    key(event) {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step) { event.preventDefault(); this.at(this.index + step); }
      else if (event.key === "Enter") { event.preventDefault(); const row = this.rows()[this.index]; if (row) this.pick(row.dataset.ref); }
      else if (event.key === "Escape") { event.preventDefault(); event.stopPropagation(); this.close(); }
      else if (event.key === "Tab") this.close(false);
    }

    pick(ref) { this.close(); this.onpick(ref); }
  }
  studio.Picker = Picker;
})();
