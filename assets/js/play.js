/* The views of the Chat tab: one is shown at a time; which one is in the address. A view registers itself as
   studio.plays.NAME = {shown()}, and its element is #chat-NAME (of the chat itself: #chat-view). */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const VIEWS = ["chat", "arena", "documents", "tools", "decode", "tokens", "engines"];
  studio.plays = {};
  let body = document.createElement("div");  // until the tab is there

  studio.playing = () => body.dataset.view;
  /** Show a view of the Chat tab. */
  studio.play = (name) => {
    const view = VIEWS.includes(name) ? name : "chat";
    body.dataset.view = view;
    for (const button of document.querySelectorAll(".pl-bar [role=tab]")) {
      button.setAttribute("aria-selected", String(button.dataset.view === view));
      if (button.dataset.view === view && button.offsetParent) button.scrollIntoView({ block: "nearest", inline: "nearest" });  // on a telephone they are more than fit
    }
    if (studio.tabNow() === "chat") studio.setParam("view", view === "chat" ? null : view);
    studio.plays[view]?.shown?.();
  };

  studio.parts.play = ({ root }) => {
    body = root.closest("#chat-body");
    root.innerHTML = `<div class="st-views pl-bar" role="tablist" aria-label="${esc(t("play.views"))}">${VIEWS.map((v) =>
      `<button type="button" role="tab" data-view="${v}" id="chat-tab-${v}" aria-controls="chat-${v === "chat" ? "view" : v}">${esc(t(`play.${v}`))}</button>`).join("")}</div>`;
    root.onclick = (event) => event.target.dataset.view && studio.play(event.target.dataset.view);
    window.addEventListener("studio:tab", (event) => (event.detail === "chat" ? studio.play(body.dataset.view) : studio.setParam("view", null)));
    studio.play(studio.param("view") || "chat");
  };
})();
