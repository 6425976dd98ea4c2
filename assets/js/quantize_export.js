/* A model elsewhere: how other programs run it, its files, and several variants in one repository of the Hub. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const LICENSES = ["apache-2.0", "mit", "cc-by-4.0", "cc-by-nc-4.0", "openrail", "llama3.1", "gemma", "other"];
  const newest = () => [...document.querySelectorAll("dialog.st-dialog")].at(-1);

  const block = (head, text, more = "") => `<div class="qz-block"><header><b>${esc(head)}</b><span>${more}<button type="button" class="st-btn st-small" data-copy aria-label="${esc(t("quantize.copy", { what: head }))}">${esc(t("action.copy"))}</button></span></header><pre class="st-code" tabindex="0">${esc(text)}</pre></div>`;

  const page = (one) => one.possible
    ? `${one.notes.map((note) => `<p class="st-muted">${esc(note)}</p>`).join("")}${one.files.map((file) => block(file.name, file.text, `<button type="button" class="st-btn st-small" data-save="${esc(file.name)}">${esc(t("yaml.download"))}</button>`)).join("")}${one.commands.map((command) => block(command.title, command.text)).join("")}`
    : `<div class="st-empty"><b>${esc(t("quantize.export.not", { name: one.title }))}</b><p>${esc(one.why)}</p></div>`;

  /** How llama.cpp, Ollama, LM Studio, vLLM, SGLang and transformers run a model. */
  studio.exportModel = async (ref, label) => {
    let found;
    const done = studio.ask(t("quantize.export.title", { name: label }), `<div class="st-working" role="status">${esc(t("quantize.export.working"))}</div>`), dialog = newest();
    dialog.classList.add("qz-wide", "qz-export");
    const body = dialog.querySelector(".st-dialog-body");
    try { found = await studio.call("quantize_exports", { ref }); } catch (error) {
      body.innerHTML = `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>`;
      return done;
    }
    const show = (target) => {
      for (const tab of body.querySelectorAll("[role=tab]")) { const on = tab.dataset.target === target; tab.setAttribute("aria-selected", String(on)); tab.tabIndex = on ? 0 : -1; }
      body.querySelector("[role=tabpanel]").innerHTML = page(found.find((one) => one.target === target));
      body.querySelector("[role=tabpanel]").setAttribute("aria-label", found.find((one) => one.target === target).title);
    };
    body.innerHTML = `<p class="st-muted">${esc(t("quantize.export.lead"))}</p><div class="st-views" role="tablist">${found.map((one) => `<button type="button" role="tab" data-target="${esc(one.target)}" class="${one.possible ? "" : "qz-cannot"}">${esc(one.title)}${one.possible ? "" : `<span class="st-visually-hidden"> (${esc(t("quantize.export.cannot"))})</span>`}</button>`).join("")}</div><div role="tabpanel"></div>`;
    body.onclick = (event) => {
      const { target, save } = event.target.closest("[data-target],[data-save]")?.dataset || {}, text = event.target.closest(".qz-block")?.querySelector("pre").textContent;
      if (target) return show(target);
      if (save) return keep(save, text);
      if (event.target.closest("[data-copy]")) studio.copy(text, event.target.closest("[data-copy]"));
    };
    show((found.find((one) => one.possible && one.target === "ollama") || found.find((one) => one.possible) || found[0]).target);
    await done;
  };

  /** A text as a file of the browser. */
  const keep = (name, text) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text], { type: "text/plain" })), download: name });
    link.click();
    URL.revokeObjectURL(link.href);
  };

  /** The files of a variant; a single one is fetched at once. */
  studio.downloadModel = async (id, label) => {
    try {
      const files = await studio.call("quantize_files", { id }), ggufs = files.filter((file) => file.name.endsWith(".gguf"));
      if (ggufs.length === 1) {
        Object.assign(document.createElement("a"), { href: ggufs[0].url, download: ggufs[0].name }).click();
        return studio.toast(t("quantize.files.started", { name: ggufs[0].name, size: studio.bytes(ggufs[0].size) }));
      }
      await studio.ask(t("quantize.files.title", { name: label }), `<p class="st-muted">${esc(t("quantize.files.help"))}</p><ul class="qz-files">${files.map((file) => `<li><a href="${esc(file.url)}" download="${esc(file.name)}">${esc(file.name)}</a><span class="st-muted">${esc(studio.bytes(file.size))}</span></li>`).join("")}</ul>`);
    } catch (error) { studio.failed(error); }
  };

  /** Several variants of one model into one repository. */
  studio.pushVariants = async (variants, source) => {
    const answer = studio.ask(t("quantize.push.title"), `<p class="st-muted">${esc(t("quantize.push.help"))}</p>
      <fieldset class="qz-push"><legend>${esc(t("quantize.variants"))}</legend>${variants.map((v) => `<label class="st-check"><input type="checkbox" name="ref-${esc(v.ref)}" checked> ${esc(studio.variantName(v))} <span class="st-muted">${esc(studio.bytes(v.size))}</span></label>`).join("")}</fieldset>
      <label class="st-line">${esc(t("push.repo"))}<input name="repo_id" required placeholder="${esc(t("quantize.push.example"))}" autofocus></label>
      <label class="st-line">${esc(t("push.license"))}<input name="license" list="qz-licenses" placeholder="${esc(t("push.license.example"))}"><datalist id="qz-licenses">${LICENSES.map((l) => `<option>${l}</option>`).join("")}</datalist></label>
      <label class="st-check"><input type="checkbox" name="private" checked> ${esc(t("push.private"))}</label>`, t("push.start"));
    const said = await answer;
    if (!said) return;
    const models = Object.keys(said).filter((name) => name.startsWith("ref-")).map((name) => name.slice(4));
    await studio.job({ kind: "publish", method: "variants", models, repo_id: said.repo_id, license: said.license, private: "private" in said });
  };
})();
