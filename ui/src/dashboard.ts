import { mount } from "svelte";

import { relayApi } from "./dashboard/api";
import Dashboard from "./dashboard/Dashboard.svelte";
import "./style.css";

mount(Dashboard, {
  target: document.getElementById("app")!,
  props: { api: relayApi(fetch.bind(globalThis)), store: sessionStorage, place: location.host, languages: navigator.languages },
});
