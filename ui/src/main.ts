import { mount } from "svelte";

import { actions, desktop } from "./lib/tauri";
import NowPage from "./parts/NowPage.svelte";
import "./style.css";

mount(NowPage, { target: document.getElementById("app")!, props: { source: desktop, languages: navigator.languages, actions } });
