/* A scrollbar over any number of rows of one height. Above the height a browser can lay out, positions are mapped: short moves
   scroll by the pixel, long ones (the thumb dragged, End) by the share of the whole. */
(() => {
  "use strict";
  const MOST = 12e6; // pixels; Firefox stops near 17.8 million, Chromium near 33 million

  class Scroller {
    /** `draw(first, last)` is asked for whenever the rows in sight change; `place(i)` is a row's offset in pixels. */
    constructor(element, { row, draw }) {
      Object.assign(this, { element, row, draw, total: 0, top: 0, last: 0, asked: 0 });
      this.head = element.querySelector(".st-dv-head");
      this.space = element.querySelector(".st-dv-space");
      element.addEventListener("scroll", () => this.scrolled(), { passive: true });
      element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      new ResizeObserver(() => this.resized()).observe(element);
    }

    get view() { return Math.max(this.row, this.element.clientHeight - this.head.offsetHeight); }
    get most() { return Math.max(0, this.total * this.row - this.view); }
    get range() { return Math.max(0, this.element.scrollHeight - this.element.clientHeight); }
    get direct() { return this.total * this.row <= MOST; }
    get page() { return Math.max(1, Math.floor(this.view / this.row) - 1); }
    place(index) { return index * this.row - this.top; }

    resize(total) {
      this.total = total;
      this.space.style.height = `${Math.min(total * this.row, MOST)}px`;
      this.to(Math.min(this.top, this.most));
    }

    resized() { if (this.element.clientHeight) this.to(Math.min(this.top, this.most)); }

    scrolled() {
      const at = this.element.scrollTop, moved = at - this.last;
      this.last = at;
      if (!moved) return;
      if (this.direct) this.top = Math.min(at, this.most);
      else if (Math.abs(moved) <= this.view * 1.5) {
        this.top = Math.min(this.most, Math.max(0, this.top + moved));
        if (at <= 0 || at >= this.range - 1) this.sync();
        clearTimeout(this.rest);
        this.rest = setTimeout(() => this.sync(), 160);
      } else this.top = at * (this.most / this.range);
      this.ask();
    }

    wheel(event) {
      if (this.direct || event.ctrlKey || event.shiftKey || !event.deltaY) return;
      const next = Math.min(this.most, Math.max(0, this.top + event.deltaY * (event.deltaMode === 1 ? this.row : event.deltaMode === 2 ? this.view : 1)));
      if (next === this.top) return; // at the end: let the page go on
      event.preventDefault();
      this.to(next);
    }

    /** Put the thumb where the rows are. */
    sync() {
      const wanted = this.direct ? this.top : this.most ? this.top * (this.range / this.most) : 0;
      if (Math.abs(this.element.scrollTop - wanted) >= 1) this.element.scrollTop = wanted;
      this.last = this.element.scrollTop;
    }

    to(top) { this.top = Math.min(this.most, Math.max(0, top)); this.sync(); this.ask(); }

    /** Bring a row into sight. */
    show(index) {
      const from = index * this.row;
      if (from < this.top) this.to(from);
      else if (from + this.row > this.top + this.view) this.to(from + this.row - this.view);
      else this.ask();
    }

    ask() {
      if (this.asked) return;
      this.asked = requestAnimationFrame(() => {
        this.asked = 0;
        const first = Math.max(0, Math.floor(this.top / this.row));
        this.draw(first, Math.min(this.total - 1, Math.ceil((this.top + this.view) / this.row)));
      });
    }
  }
  window.studio.Scroller = Scroller;
})();
