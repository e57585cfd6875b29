// Before anything is painted, so that a chosen theme does not follow a flash of the other one.
"use strict";
try {
  const theme = localStorage.getItem("layermesh-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing goes by what the system says.
}
