/* A section of the decoding view: the same answer written plainly, by prompt lookup and with an assistant's proposals, and what that saves. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const SHOWN = ["num_assistant_tokens", "prompt_lookup_num_tokens", "max_matching_ngram_size", "temperature", "max_new_tokens", "seed", "rounds"];

  /** Draws itself into `place`; `asked()` gives {model, prompt}, `facts` are the bounds and models of lab_ways. */
  studio.labSpeculative = (place, facts, asked) => {
    let assistant = "", found = null, error = null, busy = false;
    const values = {};
    place.innerHTML = `<header><h2>${esc(t("lab.spec"))}</h2><p class="st-muted">${esc(t("lab.spec.about"))}</p></header>
      <div class="lt-bar"><button type="button" class="st-btn st-small" data-assistant></button><button type="button" class="st-link" data-none hidden>${esc(t("lab.spec.none"))}</button></div>
      <form><div class="ld-set">${SHOWN.map((name) => `<label><span>${esc(t(`lab.spec.set.${name}`))}</span><input name="spec-${name}" inputmode="decimal" placeholder="${facts.speculative[name][0]}"></label>`).join("")}</div><button type="submit" class="st-btn st-primary">${esc(t("lab.spec.run"))}</button></form><div class="ls-found" aria-live="polite"></div>`;
    const $ = (selector) => place.querySelector(selector);
    const named = () => {
      $("[data-assistant]").dataset.ref = assistant;
      $("[data-assistant]").textContent = t("lab.spec.assistant", { name: assistant ? facts.models.find((m) => m.ref === assistant)?.label || assistant : t("lab.spec.nobody") });
      $("[data-none]").hidden = !assistant;
    };
    new studio.Picker($("[data-assistant]"), () => facts.models.filter((m) => m.kind !== "adapter"), (ref) => { assistant = ref; named(); });
    $("[data-none]").onclick = () => { assistant = ""; named(); };
    named();

    const percent = (v) => (v == null ? "–" : `${Math.round(v * 100)} %`);
    const draw = () => {
      const most = found ? Math.max(...found.ways.map((one) => one.tokens_per_second)) : 1;
      $(".ls-found").innerHTML = `${busy ? `<p class="st-working" role="status">${esc(t("lab.spec.working"))}</p>` : ""}${error ? `<div class="st-empty st-is-bad"><b>${esc(error.message)}</b><p>${esc(error.hint || "")}</p></div>` : ""}${found ? `<div class="ls-scroll"><table><thead><tr>${["way", "speed", "speedup", "acceptance", "forwards", "same"].map((key) => `<th scope="col">${esc(t(`lab.spec.${key}`))}</th>`).join("")}</tr></thead><tbody>${found.ways.map((one) => `<tr data-way="${one.way}"><th scope="row">${esc(t(`lab.spec.way.${one.way}`))}</th><td><i style="width:${((one.tokens_per_second / most) * 90).toFixed(1)}px"></i>${esc(t("lab.spec.rate", { n: studio.num(one.tokens_per_second, 3) }))}</td><td class="${one.speedup < 0.98 ? "ls-slower" : one.speedup > 1.02 ? "ls-faster" : ""}">× ${one.speedup.toFixed(2)}</td><td>${percent(one.acceptance)}${one.proposed ? `<small>${esc(t("lab.spec.taken", { n: one.accepted, all: one.proposed }))}</small>` : ""}</td><td>${one.forwards}<small>${esc(t("lab.spec.tokens", { n: one.tokens }))}</small></td><td>${one.same == null ? "–" : esc(t(one.same ? "lab.spec.same.yes" : "lab.spec.same.no"))}</td></tr>`).join("")}</tbody></table></div>
        <details><summary>${esc(t("lab.spec.text"))}</summary><p class="ls-text">${esc(found.ways[0].text)}</p></details>` : ""}`;
    };
    $("form").onsubmit = async (event) => {
      event.preventDefault();
      if (busy) return;
      for (const input of place.querySelectorAll("input")) values[input.name.slice(5)] = input.value.trim() || null;
      [busy, error] = [true, null];
      $("[type=submit]").disabled = true;
      draw();
      try { found = await studio.call("lab_speculative", { ...asked(), assistant, settings: values }); } catch (failure) { [error, found] = [failure, null]; }
      busy = false;
      $("[type=submit]").disabled = false;
      draw();
    };
  };
})();
