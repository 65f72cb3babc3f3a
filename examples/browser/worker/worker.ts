/**
 * The page's worker: it holds the GPU and the model, so that the page stays free. Loading and answering are the library's own calls;
 * those that look inside are here. What the page asks is in protocol.ts.
 *
 * In your own project import from "instructblip-webgpu" and "instructblip-webgpu/worker"; a worker that only answers questions is
 * `answerCalls()`.
 */
import { HttpFolder, openDevice } from "../../../src/index.ts";
import { examine, formatCheck, formatSummary } from "../../../src/instructblip/doctor/doctor.ts";
import { answerCalls } from "../../../src/worker.ts";
import { effects, look, occlude, prepareParts } from "./explore.ts";
import type { PageCalls } from "./protocol.ts";

answerCalls<PageCalls>({
  look,
  occlude,

  async parts(asked) {
    const { units } = await prepareParts(asked);
    return units.map(({ group, row, column, places }) => ({ group, row, column, places }));
  },

  async effects(asked, context) {
    await effects(asked, context);
    return null;
  },

  /** As the command line's `doctor`. */
  async examine({ checkpoint: { url, files }, exam, quick }, { tell, signal }) {
    const own = await openDevice();
    try {
      const report = await examine(
        own,
        { checkpoint: new HttpFolder(url, { files }), images: exam },
        {
          quick,
          signal,
          progress: (progress) => tell({ progress }),
          onCheck: async (check) => {
            tell({ report: formatCheck(check) });
            await new Promise((heard) => setTimeout(heard)); // the f64 references would keep an abort from coming in
          },
          versions: { browser: navigator.userAgent },
        },
      );
      return `* used on this adapter\n\n${formatSummary(report)}`;
    } finally {
      own.destroy();
    }
  },
});
