/* What goes with a message, and what is taken from a chat: pictures, files, training rows. */
(() => {
  "use strict";
  const studio = window.studio, esc = studio.esc, t = studio.t;
  const MOST = 4, SIDE = 1024;  // pictures of a message; pixels of their longer side, which is what most models see

  /** A file as a picture of at most SIDE pixels, as a data: address. */
  const shrunk = async (file) => {
    const picture = await createImageBitmap(file), scale = Math.min(1, SIDE / Math.max(picture.width, picture.height));
    const canvas = Object.assign(document.createElement("canvas"), { width: Math.max(1, Math.round(picture.width * scale)), height: Math.max(1, Math.round(picture.height * scale)) });
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL(file.type === "image/png" && file.size < 300_000 ? "image/png" : "image/jpeg", 0.85);
  };

  /** The pictures beside the prompt: chosen, pasted or dropped. */
  studio.Attached = class {
    constructor(chat) {
      Object.assign(this, { images: [], place: chat.$("attached") });
      const form = chat.root.querySelector("form");
      chat.$("attach").onclick = () => {
        const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/png,image/jpeg,image/webp,image/gif", multiple: true });
        input.onchange = () => this.add(input.files);
        input.click();
      };
      chat.$("prompt").addEventListener("paste", (event) => { if (event.clipboardData.files.length) { event.preventDefault(); this.add(event.clipboardData.files); } });
      form.addEventListener("dragover", (event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); });
      form.addEventListener("drop", (event) => { if (event.dataTransfer.files.length) { event.preventDefault(); this.add(event.dataTransfer.files); } });
      this.place.onclick = (event) => { const which = event.target.closest("[data-drop]")?.dataset.drop; if (which) { this.images.splice(+which, 1); this.draw(); } };
    }

    async add(files) {
      for (const file of files) {
        if (this.images.length >= MOST) { studio.toast(t("chat.attach.many"), "bad"); break; }
        try { this.images.push(await shrunk(file)); } catch { studio.toast(t("chat.attach.bad", { name: file.name }), "bad"); }
      }
      this.draw();
    }

    clear() { this.images = []; this.draw(); }

    draw() {
      this.place.hidden = !this.images.length;
      this.place.innerHTML = this.images.map((url, i) => `<span><img src="${esc(url)}" alt="${esc(t("chat.picture", { n: i + 1 }))}"><button type="button" data-drop="${i}" aria-label="${esc(t("chat.attach.drop", { n: i + 1 }))}">×</button></span>`).join("");
    }
  };

  const download = ({ name, text }) => {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(new Blob([text])), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  };

  /** A chat as a file, or its rows in the Dataset tab. */
  studio.takeChat = async (chat) => {
    if (!chat.id) return studio.toast(t("chat.take.empty"));
    const answer = await studio.ask(t("chat.take"), `<p class="st-muted">${esc(t("chat.take.help"))}</p><div class="ch-take">${["markdown", "json", "jsonl", "rows"].map((form, i) => `<label class="st-check"><input type="radio" name="form" value="${form}" ${i ? "" : "checked"}> ${esc(t(`chat.take.${form}`))}</label>`).join("")}</div>
      <label class="st-check"><input type="checkbox" name="thoughts"> ${esc(t("chat.take.thoughts"))}</label>`, t("chat.take.go"));
    if (!answer) return;
    try {
      if (answer.form !== "rows") return download(await studio.call("chat_export", { id: chat.id, form: answer.form }));
      const made = await studio.call("chat_rows", { id: chat.id, thoughts: "thoughts" in answer });
      studio.toast(t("chat.take.made", { n: made.rows, name: made.name }));
      studio.open("data", { bring: made.ref });
    } catch (error) { studio.failed(error); }
  };
})();
