/* What can be done with the version that is open: train on it, take it away, publish, rename, delete, see where it comes from. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const idOf = (ref) => ref.replace(/^library:/, "").split("#")[0];

  class Actions {
    constructor(frame) { this.frame = frame; }

    get open() { return this.frame.open; }

    train() {
      studio.lives.finetune?.show(null);
      studio.open("finetune", { values: { dataset: this.open.ref } });
    }

    download() { this.form("data", "export", "data.download", "data.download.help", "data.download.do"); }
    push() { this.form("publish", "dataset", "data.push", "data.push.help", "push.start"); }

    /** A job that is no step of the pipeline, set up in the dialog of its own fields. */
    form(kind, method, title, help, action) {
      const spec = this.frame.state.forms[`${kind}/${method}`];
      studio.stepDialog({ step: { ...spec, title: t(title), summary: t(help) }, values: { dataset: this.open.ref }, reads: this.open.name, skip: ["name"], tries: false, context: this.frame.context(), action: t(action),
        note: t("data.takes", { name: this.open.name }), wrap: (filled) => ({ kind, method, ...filled }), run: (recipe) => this.frame.submit(recipe) });
    }

    async rename() {
      const answer = await studio.ask(t("item.rename"), `<label class="st-line">${esc(t("item.name"))}<input name="name" required maxlength="80" value="${esc(this.open.name)}" autofocus></label>`, t("action.rename"));
      if (answer) try { await studio.call("rename", { id: idOf(this.open.ref), name: answer.name }); await this.frame.refresh(); } catch (error) { studio.failed(error); }
    }

    async remove() {
      if (!await studio.ask(t("item.delete"), `<p>${esc(t("data.delete.body", { name: this.open.name }))}</p>`, t("action.delete"), true)) return;
      try { await studio.call("delete", { id: idOf(this.open.ref) }); await this.frame.closed(); } catch (error) { studio.failed(error); }
    }

    async about() {
      const open = this.open;
      try {
        const [card, found] = await Promise.all([studio.call("card", { id: idOf(open.ref) }), studio.call("lineage", { id: idOf(open.ref) })]);
        const made = studio.dataDialog(open.name, `<form method="dialog"><h2>${esc(open.name)}</h2><div class="st-dialog-body"><p><code>${esc(open.ref)}</code> <button type="button" class="st-btn st-small" data-ref-copy>${esc(t("item.copy"))}</button></p>
          <h3>${esc(t("item.lineage"))}</h3>${studio.lineageTree(found, open.ref)}<h3>${esc(t("data.card"))}</h3><pre class="st-code" tabindex="0">${esc(card)}</pre></div>
          <footer><button type="button" class="st-btn" data-copy>${esc(t("action.copy"))}</button><button type="button" class="st-btn st-primary" data-cancel>${esc(t("action.close"))}</button></footer></form>`);
        made.querySelector("[data-copy]").onclick = (event) => studio.copy(card, event.target);
        made.querySelector("[data-ref-copy]").onclick = (event) => studio.copy(open.ref, event.target);
      } catch (error) { studio.failed(error); }
    }

    /** The menu behind the three dots. */
    menu(button) {
      document.querySelector(".dt-pop")?.remove();
      const strip = this.frame.strip, list = [["push", "made.push", () => this.push()], ["about", "data.about", () => this.about()], ["save", "data.save", () => strip.save()], ["run_on", "data.run_on", () => strip.runOn()],
        ["yaml", "data.yaml", () => strip.yaml()], ...(this.open.run_id ? [["run", "item.run", () => studio.openRun(this.open.run_id)]] : []), ["rename", "action.rename", () => this.rename()], ["delete", "action.delete", () => this.remove()]];
      const pop = document.createElement("div");
      pop.className = "dt-pop";
      pop.setAttribute("role", "menu");
      pop.innerHTML = list.map(([id, key]) => `<button type="button" role="menuitem" data-do="${id}" class="${id === "delete" ? "st-danger" : ""}">${esc(t(key))}</button>`).join("");
      const close = (back) => { pop.remove(); document.removeEventListener("pointerdown", outside, true); button.setAttribute("aria-expanded", "false"); if (back) button.focus(); };
      const outside = (event) => { if (!pop.contains(event.target) && !button.contains(event.target)) close(false); };
      pop.onclick = (event) => { const id = event.target.dataset.do; if (id) { close(true); list.find(([name]) => name === id)[2](); } };
      pop.onkeydown = (event) => {
        const all = [...pop.children], step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape" || event.key === "Tab") { close(true); event.preventDefault(); }
        else if (step) { all[(all.indexOf(document.activeElement) + step + all.length) % all.length].focus(); event.preventDefault(); }
      };
      button.parentElement.append(pop);
      button.setAttribute("aria-expanded", "true");
      document.addEventListener("pointerdown", outside, true);
      pop.firstElementChild.focus();
    }
  }

  studio.DataActions = Actions;
})();
