/** The package in a browser: checkpoints by URL, WebGPU from `navigator.gpu`. */
import { browserPlatform } from "./instructblip/platform.browser.ts";
import { setPlatform } from "./instructblip/platform.ts";

setPlatform(browserPlatform);

export * from "./index.ts";
