// The camera: one picture a second, as JPEG.

const EVERY_MS = 1000;
const WIDTH = 640;
const QUALITY = 0.7;

export class Camera {
  /** `onPicture(bytes: Uint8Array)` is called for each picture; `preview` is the video element that shows them. */
  static async open(preview, onPicture) {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDTH }, facingMode: "user" } });
    preview.srcObject = stream;
    await preview.play();
    return new Camera(stream, preview, onPicture);
  }

  constructor(stream, preview, onPicture) {
    this.stream = stream;
    this.preview = preview;
    this.canvas = document.createElement("canvas");
    this.timer = setInterval(() => this.look(onPicture), EVERY_MS);
    this.look(onPicture);
  }

  look(onPicture) {
    const { videoWidth, videoHeight } = this.preview;
    if (videoWidth === 0) return;
    const scale = Math.min(1, WIDTH / videoWidth);
    this.canvas.width = Math.round(videoWidth * scale);
    this.canvas.height = Math.round(videoHeight * scale);
    this.canvas.getContext("2d").drawImage(this.preview, 0, 0, this.canvas.width, this.canvas.height);
    this.canvas.toBlob(async (blob) => blob && onPicture(new Uint8Array(await blob.arrayBuffer())), "image/jpeg", QUALITY);
  }

  close() {
    clearInterval(this.timer);
    for (const track of this.stream.getTracks()) track.stop();
    this.preview.srcObject = null;
  }
}
