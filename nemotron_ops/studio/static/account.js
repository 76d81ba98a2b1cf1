// Setup and login. The setup code comes in the address's fragment, which no server sees.
import { api, t } from "./base.js";

const form = document.querySelector("form");
const code = form.elements.code;
if (code && location.hash.length > 1) {
  code.value = decodeURIComponent(location.hash.slice(1));
  history.replaceState(null, "", location.pathname);
  form.elements.password.focus();
}

form.querySelector("button").disabled = false;  // a form that is sent before this script would go its own way
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const error = form.querySelector(".error");
  const value = Object.fromEntries(new FormData(form));
  if ("again" in value && value.again !== value.password) { error.textContent = t.passwords_differ; return; }
  form.querySelector("button").disabled = true;
  error.textContent = "";
  try {
    await api(form.getAttribute("action"), value);
    location.href = form.id === "setup" ? "/welcome" : "/chat";
  } catch (failure) {
    error.textContent = failure.message;
    form.querySelector("button").disabled = false;
    form.elements.password.focus();
  }
});
