import { svelte } from "@sveltejs/vite-plugin-svelte";
import { svelteTesting } from "@testing-library/svelte/vite";
import { defineConfig } from "vitest/config";

export default defineConfig({
  plugins: [svelte(), svelteTesting()],
  clearScreen: false,
  build: {
    target: "safari16",
    // The pages run under a policy without inline script.
    modulePreload: { polyfill: false },
    // Nor do they load anything that is not a file.
    assetsInlineLimit: 0,
    rollupOptions: { input: { main: "index.html", overlay: "overlay.html", dashboard: "dashboard.html" } },
  },
  test: { environment: "jsdom", include: ["src/**/*.test.ts"] },
});
