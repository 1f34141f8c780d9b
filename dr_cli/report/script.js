// Sorting: a press on a heading orders the rows by it, a second press the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  headings.forEach((heading, column) => heading.firstElementChild.addEventListener("click", () => {
    const down = heading.getAttribute("aria-sort") === "ascending";
    headings.forEach(other => other.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = row => row.cells[column].dataset.value;
    const order = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");  // unknown stays last
      return (down ? -1 : 1) * (isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y);
    };
    body.append(...[...body.rows].sort(order));
  }));
}
// On paper nothing can be opened: what matters there is.
const closed = () => document.querySelectorAll("details:not([open]):not(.fold)");
let opened = [];
addEventListener("beforeprint", () => { opened = [...closed()]; for (const one of opened) one.open = true; });
addEventListener("afterprint", () => { for (const one of opened) one.open = false; });
// A table that is cut says that it scrolls.
const mark = () => {
  for (const box of document.querySelectorAll(".wide"))
    box.classList.toggle("cut", box.scrollWidth > box.clientWidth + 1);
};
addEventListener("resize", mark);
addEventListener("toggle", mark, true);
mark();
