/** An image from the camera, which is asked for when the dialog is opened, and let go when it closes. */
import { element } from "./elements.ts";

const page = {
  dialog: element("dialog", "#camera"),
  video: element("video", "#viewfinder"),
  message: element("p", "#camera-message"),
  cancel: element("button", "#cancel-camera"),
  shutter: element("button", "#shutter"),
};

/** Why there is no camera, by the error's name (Media Capture and Streams, getUserMedia). */
const REASONS: Readonly<Record<string, string>> = {
  NotAllowedError: "The camera was refused. The browser's settings for this page can allow it; or choose a file.",
  NotFoundError: "There is no camera on this computer. Choose a file instead.",
  NotSupportedError: "This browser gives pages no camera. Choose a file instead.",
  NotReadableError: "The camera is in use by another program. Close that, and try again.",
};

function reasonOf(error: unknown): string {
  const { name, message } = error as Error;
  return REASONS[name] ?? `The camera gives no image: ${message}`;
}

/** The image that the user takes; undefined if none. */
export async function openCamera(): Promise<Blob | undefined> {
  page.message.textContent = "";
  page.shutter.disabled = true;
  page.dialog.showModal();
  const closed = new Promise((resolve) => page.dialog.addEventListener("close", resolve, { once: true }));
  page.cancel.onclick = () => page.dialog.close();
  let isOpen = true;
  void closed.then(() => {
    isOpen = false;
  });
  let taken: Promise<Blob | null> | undefined;
  let stream: MediaStream | undefined;
  try {
    if (!navigator.mediaDevices) throw new DOMException("only pages over https or from localhost may use it");
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    if (!isOpen) return undefined;
    page.video.srcObject = stream;
    await page.video.play();
    page.shutter.disabled = false;
    page.shutter.focus();
    page.shutter.onclick = () => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [page.video.videoWidth, page.video.videoHeight];
      canvas.getContext("2d")!.drawImage(page.video, 0, 0);
      taken = new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
      page.dialog.close();
    };
    await closed;
  } catch (error) {
    if (isOpen) page.message.textContent = reasonOf(error);
  } finally {
    for (const track of stream?.getTracks() ?? []) track.stop();
    page.video.srcObject = null;
  }
  return (await taken) ?? undefined;
}
