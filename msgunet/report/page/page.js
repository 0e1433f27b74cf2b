// Columns sort on a click (sortable.min.js) or from the keyboard.
"use strict";

for (const heading of document.querySelectorAll("table.sortable thead th")) {
  heading.tabIndex = 0;
  heading.title = "Sort by this column";
  heading.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      heading.click();
    }
  });
}
