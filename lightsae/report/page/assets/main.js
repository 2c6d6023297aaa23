// Begins.

function watchTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const apply = () => { document.documentElement.dataset.theme = chosen ?? (system.matches ? "dark" : "light"); };
  system.addEventListener("change", apply);
  document.getElementById("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    apply();
  });
  apply();
}

const ready = () => { document.documentElement.dataset.ready = "true"; };

watchTheme();
showCharts();
// A page of steerings has no latents to show.
if (runs.length) {
  addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key !== "/" || typing || dialog.open) return;
    event.preventDefault();
    document.getElementById("search").focus();
  });
  unpackArrays().then(() => {
    loadNames();
    showGallery();
    watchDialog();
    openFromAddress();
    ready();
  });
} else ready();
