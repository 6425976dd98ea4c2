/* Library: what there is to start from and what was made, with where it came from. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const KINDS = ["all", "model", "adapter", "dataset", "family"];
  const count = (rows) => (typeof rows === "number" ? rows : Object.values(rows).reduce((a, b) => a + b, 0));  // a version has several splits
  const group = (item) => ({ starter: "model", model: "model", adapter: "adapter" })[item.kind] || "dataset";

  /** What something came from and what it became, as a tree. */
  studio.lineageTree = ({ nodes, edges }, ref) => {
    const label = Object.fromEntries(nodes.map((n) => [n.ref, n]));
    const line = (n, role) => `<span class="st-tag">${esc(t(`item.${n?.kind || "model"}`))}</span> ${esc(n?.label || "?")}${role ? ` <small class="st-muted">${esc(role)}</small>` : ""}`;
    const up = (at, seen) => edges.filter((e) => e.child === at && !seen.has(e.parent)).map((e) => `<li>${line(label[e.parent], e.role)}<ul>${up(e.parent, new Set([...seen, e.parent]))}</ul></li>`).join("");
    const down = (at, seen) => edges.filter((e) => e.parent === at && !seen.has(e.child)).map((e) => `<li>${line(label[e.child], e.role)}<ul>${down(e.child, new Set([...seen, e.child]))}</ul></li>`).join("");
    const parents = up(ref, new Set([ref])), children = down(ref, new Set([ref]));
    return `<div class="st-tree">${parents ? `<b>${esc(t("item.from"))}</b><ul>${parents}</ul>` : ""}${children ? `<b>${esc(t("item.made_of"))}</b><ul>${children}</ul>` : ""}</div>`;
  };

  class Library {
    constructor({ element, root }) {
      Object.assign(this, { root, items: null, kind: "all", filter: "" });
      root.innerHTML = `<div class="st-toolbar"><div class="st-views" role="tablist">${KINDS.map((k) => `<button type="button" role="tab" data-kind="${k}" aria-selected="${k === "all"}">${esc(t(`library.${k}`))}</button>`).join("")}</div>
        <span class="st-push"></span><input type="search" placeholder="${esc(t("library.filter"))}" aria-label="${esc(t("library.filter"))}"></div><div class="st-cards"></div><div class="fm" hidden></div>`;
      this.cards = root.querySelector(".st-cards");
      root.querySelector("input").oninput = (event) => { this.filter = event.target.value.toLowerCase(); this.draw(); };
      root.querySelector(".st-views").onclick = (event) => {
        if (event.target.dataset.kind) this.turn(event.target.dataset.kind);
      };
      this.cards.addEventListener("click", (event) => this.click(event));
      this.tick = studio.poll(element, 6000, () => this.load());
      window.addEventListener("studio:tab", (event) => event.detail === "library" && this.tick());
      window.addEventListener("studio:runs-ended", () => this.tick());
      window.addEventListener("studio:family", () => root.isConnected && this.wanted());
      this.wanted();
    }

    /** Somebody asked for the family of one of them. */
    wanted() {
      const ref = studio.familyWanted;
      if (!ref) return;
      studio.familyWanted = null;
      this.turn("family", ref);
      this.tick();
    }

    turn(kind, chosen = null) {
      this.kind = kind;
      for (const button of this.root.querySelectorAll("[data-kind]")) button.setAttribute("aria-selected", String(button.dataset.kind === kind));
      if (kind === "family") this.family ??= new studio.FamilyTree(this.root.querySelector(".fm"), this);
      if (chosen) Object.assign(this.family, { chosen, key: null });
      this.draw();
      if (kind === "family") this.family.load();
    }

    async load() {
      const found = await studio.call("library");
      this.items = [...found.models.filter((m) => m.kind !== "checkpoint"), ...found.datasets.filter((d) => d.stage !== "step")];
      this.draw();
      if (this.kind === "family") this.family.load();
    }

    draw() {
      if (!this.items) return;
      const tree = this.kind === "family";
      this.cards.hidden = tree;
      this.root.querySelector(".fm").hidden = !tree;
      if (tree) return this.family.draw();
      const shown = this.items.filter((i) => (this.kind === "all" || group(i) === this.kind) && (!this.filter || `${i.label} ${i.ref} ${i.detail}`.toLowerCase().includes(this.filter)));
      const html = shown.length ? shown.map((i) => this.card(i)).join("")
        : `<div class="st-empty"><b>${esc(t(this.filter ? "library.none_match" : `library.empty.${this.kind}`))}</b><p>${esc(t("library.empty.hint"))}</p></div>`;
      if (html !== this.shown) this.cards.innerHTML = this.shown = html;
    }

    card(i) {
      const kind = group(i), button = (act, key) => `<button type="button" class="st-btn st-small" data-act="${act}">${esc(t(key))}</button>`;
      const facts = [kind === "dataset" && i.format, i.rows != null && t("library.rows", { n: count(i.rows).toLocaleString("en") }), i.size && studio.bytes(i.size), i.created && studio.ago(i.created)].filter(Boolean);
      return `<article class="st-card st-item st-item-${kind}" data-ref="${esc(i.ref)}"><header><span class="st-tag">${esc(t(`item.${i.kind}`))}</span><h2 title="${esc(i.label)}">${esc(i.label)}</h2></header>
        <p>${esc(i.detail || "")}</p>${i.warning ? `<p class="st-warn" title="${esc(i.warning)}">${esc(i.warning)}</p>` : ""}<p class="st-muted st-facts">${facts.map(esc).join(" · ")}</p>
        <footer>${kind === "dataset" ? button("use", "item.use") + (i.version ? button("data", "item.data") : "") : button("chat", "action.chat") + button("train", "item.train")}
        <button type="button" class="st-btn st-small" data-act="more" aria-label="${esc(t("item.more", { name: i.label }))}">⋯</button></footer></article>`;
    }

    async click(event) {
      const act = event.target.closest("[data-act]")?.dataset.act, ref = event.target.closest("[data-ref]")?.dataset.ref;
      const item = this.items?.find((i) => i.ref === ref);
      if (!item) return;
      if (act === "chat") return studio.open("chat", { models: [item.ref] });
      if (act === "train") return studio.startFrom(item.ref);
      if (act === "use") return studio.useData(item.ref, item.format);
      if (act === "data") return studio.open("data", { ref: item.ref });
      if (act === "more") this.more(item);
    }

    /** Everything about one item: facts, where it came from, what can be done. */
    async more(item) {
      const kind = group(item), own = !!item.id;
      let family = "";
      if (own) {
        try { family = studio.lineageTree(await studio.call("lineage", { id: item.id }), item.ref); } catch (error) { family = `<p>${esc(error.message)}</p>`; }
      }
      const meta = Object.entries(item.meta || {}).filter(([, v]) => ["string", "number"].includes(typeof v));
      const acts = [kind !== "dataset" && ["chat", "action.chat"], kind !== "dataset" ? ["train", "item.train"] : ["use", "item.use"], kind === "model" && ["export", "quantize.do.export"], kind !== "dataset" && own && !item.meta?.reward && ["against", "eval.against"], kind !== "dataset" && !item.meta?.format && ["quantize", "made.quantize"], own && kind === "adapter" && ["merge", "made.merge"],
        own && kind !== "dataset" && ["push", "made.push"], item.version && ["data", "item.data"], own && kind !== "dataset" && ["card", "made.card"], item.run_id && ["run", "item.run"], ["copy", "item.copy"], own && ["rename", "action.rename"], own && ["delete", "action.delete"]].filter(Boolean);
      const done = studio.ask(item.label, `<p>${esc(item.detail || "")}</p>${item.warning ? `<p class="st-warn" role="alert">${esc(item.warning)}</p>` : ""}<table class="st-table"><tbody><tr><th scope="row">${esc(t("item.ref"))}</th><td><code>${esc(item.ref)}</code></td></tr>${meta.map(([k, v]) => `<tr><th scope="row">${esc(k.replaceAll("_", " "))}</th><td>${esc(typeof v === "number" ? studio.num(v) : v)}</td></tr>`).join("")}</tbody></table>
        ${family ? `<h3>${esc(t("item.lineage"))}</h3>${family}` : ""}<div class="st-actions">${acts.map(([a, key]) => `<button type="button" class="st-btn st-small${a === "delete" ? " st-danger" : ""}" data-do="${a}">${esc(t(key))}</button>`).join("")}</div>`);
      const dialog = [...document.querySelectorAll("dialog.st-dialog")].at(-1);
      dialog.addEventListener("click", async (event) => {
        const act = event.target.dataset?.do;
        if (!act) return;
        if (act === "copy") return studio.copy(item.ref, event.target);
        dialog.close();
        if (act === "chat") studio.open("chat", { models: [item.ref] });
        if (act === "train") studio.startFrom(item.ref);
        if (act === "use") studio.useData(item.ref, item.format);
        if (act === "data") studio.open("data", { ref: item.ref });
        if (act === "merge") studio.merge(item.ref, item.label);
        if (act === "push") studio.push(item.ref, item.label);
        if (act === "export") studio.exportModel(item.ref, item.label);
        if (act === "quantize") studio.startFrom(item.ref, "quantize");
        if (act === "against") studio.evalAgainst(item.ref);
        if (act === "run") studio.openRun(item.run_id);
        if (act === "card") studio.call("card", { id: item.id }).then(studio.showCard, studio.failed);
        if (act === "rename") this.rename(item);
        if (act === "delete") this.remove(item);
      });
      await done;
    }

    async rename(item) {
      const answer = await studio.ask(t("item.rename"), `<label class="st-line">${esc(t("item.name"))}<input name="name" required maxlength="80" value="${esc(item.label)}" autofocus></label>`, t("action.rename"));
      if (answer) await this.act("rename", { id: item.id, name: answer.name });
    }

    async remove(item) {
      if (await studio.ask(t("item.delete"), `<p>${esc(t("item.delete.body", { name: item.label }))}</p>`, t("action.delete"), true)) await this.act("delete", { id: item.id });
    }

    async act(name, values) {
      try { await studio.call(name, values); this.tick(); } catch (error) { studio.failed(error); }
    }
  }
  studio.parts.library = (context) => new Library(context);
})();
