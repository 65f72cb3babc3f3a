/** Runs over many questions go on when the device is lost: the model is loaded again, on a new device. */
import { DeviceError } from "../../../tensor/errors.ts";
import type { Run } from "../session.node.ts";
import { say } from "../terminal.node.ts";

/** Losses in a row, with no answer in between, after which a run ends: a question may be what loses the device. */
export const MOST_LOSSES = 3;

/** A driver that is restarted needs a moment: the first time none, then this much longer each time. */
const PAUSE_MS = 1000;

/**
 * Does `work` again, on a new device, when it throws that the device was lost; it must go on where it was.
 *
 * @param work calls `progressed` after each answer, and loads the model if there is none
 * @param release disposes the model of a lost device
 * @throws what `work` throws; DEVICE_LOST if the device is lost again and again, or no other is to be had
 */
export async function reopening<T>(
  { terminal, signal }: Run,
  work: (progressed: () => void) => Promise<T>,
  release: () => void,
): Promise<T> {
  let losses = 0;
  let loss: DeviceError | undefined;
  for (;;) {
    try {
      return await work(() => {
        losses = 0;
        loss = undefined;
      });
    } catch (error) {
      if (signal.aborted || !(error instanceof DeviceError)) throw error;
      const isMissing = loss !== undefined && ["NO_ADAPTER", "NO_DEVICE"].includes(error.code);
      if (error.code === "DEVICE_LOST") loss = error;
      else if (!isMissing) throw error;
      if (losses === MOST_LOSSES) throw loss;
      release();
      const [what] = error.message.split("\n");
      say(terminal, `warning: ${what}; loading the model again on a new device (${++losses} of ${MOST_LOSSES})`);
      await new Promise((resolve) => setTimeout(resolve, (losses - 1) * PAUSE_MS));
      signal.throwIfAborted();
    }
  }
}
