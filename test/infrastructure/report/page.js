// What scripts add to the page: zoom, moving through the time line by keyboard, and copying commands.
for (const command of document.querySelectorAll(".command")) {
  const button = command.appendChild(document.createElement("button"));
  button.textContent = "copy";
  button.onclick = () => {
    getSelection().selectAllChildren(command.firstElementChild);
    document.execCommand("copy"); // the clipboard's own interface is not there for files
    button.textContent = "copied";
  };
}
const line = document.querySelector(".line");
if (line) {
  const inner = line.firstElementChild, tools = document.querySelector(".tools"), says = document.createElement("output");
  let zoom = 1;
  const scale = (to, at = line.clientWidth / 2) => {
    const label = parseFloat(getComputedStyle(line.querySelector(".axis")).marginLeft);
    const place = (line.scrollLeft + at - label) / (inner.clientWidth - label);
    zoom = Math.min(200, Math.max(1, to));
    inner.style.setProperty("--zoom", zoom);
    line.scrollLeft = place * (inner.clientWidth - label) - at + label;
  };
  const show = bar => {
    line.querySelector("[aria-current]")?.removeAttribute("aria-current");
    if (!bar) return;
    bar.setAttribute("aria-current", "true");
    says.textContent = bar.title;
    bar.scrollIntoView({block: "nearest", inline: "nearest"});
  };
  for (const [text, name, act] of [["−", "zoom out", () => scale(zoom / 2)], ["+", "zoom in", () => scale(zoom * 2)], ["all", "show all", () => scale(1)]]) {
    const button = tools.appendChild(document.createElement("button"));
    button.textContent = text;
    button.setAttribute("aria-label", name);
    button.onclick = act;
  }
  says.setAttribute("aria-live", "polite");
  says.textContent = "Keys in the time line: arrows move, + and − zoom, 0 shows all, Enter opens.";
  tools.append(says);
  line.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    scale(zoom * Math.exp(-event.deltaY / 200), event.clientX - line.getBoundingClientRect().left);
  }, {passive: false});
  line.addEventListener("click", event => event.target.closest(".b") && show(event.target.closest(".b")));
  line.addEventListener("keydown", event => {
    const rows = [...line.querySelectorAll(".row")].filter(row => row.querySelector(".b"));
    const now = line.querySelector("[aria-current]");
    const move = {ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1]}[event.key];
    if (move) {
      const row = now ? rows.indexOf(now.closest(".row")) : 0;
      if (!now) show(rows[0].querySelector(".b"));
      else if (move[0]) {
        const bars = [...rows[row].querySelectorAll(".b")].sort((a, b) => parseFloat(a.style.left) - parseFloat(b.style.left));
        show(bars[bars.indexOf(now) + move[0]] ?? now);
      } else {
        const near = bar => Math.abs(parseFloat(bar.style.left) - parseFloat(now.style.left));
        const next = rows[row + move[1]];
        if (next) show([...next.querySelectorAll(".b")].reduce((a, b) => near(b) < near(a) ? b : a));
      }
    } else if (event.key === "+" || event.key === "=") scale(zoom * 2);
    else if (event.key === "-") scale(zoom / 2);
    else if (event.key === "0") scale(1);
    else if (event.key === "Enter" && now?.dataset.to) location.hash = now.dataset.to;
    else return;
    event.preventDefault();
  });
}
