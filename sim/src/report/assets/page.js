'use strict';
// Light or dark: as the system says, until somebody chooses.
function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme
    ? root.dataset.theme === 'dark'
    : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  dispatchEvent(new Event('theme'));
}
document.getElementById('theme').addEventListener('click', switchTheme);
