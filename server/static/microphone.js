// The microphone as a stream of PCM16 frames, and what to tell people when there is none.

/** What went wrong with the microphone, in words that say what to do. */
export class MicrophoneError extends Error {
  constructor(code, title, message) {
    super(message);
    Object.assign(this, { code, title });
  }
}

const REASONS = {
  NotAllowedError: ["The microphone is blocked",
    "Allow it for this page in the browser's site settings, then press Speak again."],
  NotFoundError: ["No microphone found", "Connect one, then press Speak again."],
  NotReadableError: ["The microphone is busy",
    "Another program may be using it. Close that program, then press Speak again."],
  OverconstrainedError: ["That microphone is gone", "Choose another one, then press Speak again."],
};

const INSECURE = ["The microphone needs a secure page",
  "Browsers allow it on localhost or over TLS only: open this page as http://localhost or https://."];

export const isSecure = () => window.isSecureContext && Boolean(navigator.mediaDevices);

/** Return the microphones as `{id, label}`; labels are empty until one has been allowed. */
export async function listDevices() {
  if (!isSecure()) return [];
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default")
    .map(({ deviceId, label }) => ({ id: deviceId, label }));
}

/** Ask for a microphone as it is: what makes calls pleasant to hear makes speech hard to recognize. */
async function capture(device) {
  if (!isSecure()) throw new MicrophoneError("insecure_context", ...INSECURE);
  const plain = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { ...plain, ...(device && { deviceId: { exact: device } }) },
    });
  } catch (error) {
    const [title, message] = REASONS[error.name] ?? ["The microphone did not start", error.message];
    throw new MicrophoneError(error.name, title, message);
  }
}

/**
 * Open a microphone: `frame(Int16Array)` is called for every 40 ms, `lost()` if the device goes away.
 * Returns the function that closes it. Throws MicrophoneError.
 */
export async function openMicrophone(device, { frame, lost }) {
  const stream = await capture(device);
  const context = new AudioContext();
  const close = () => {
    for (const track of stream.getTracks()) track.stop();
    if (context.state !== "closed") context.close();
  };
  try {
    await context.resume();
    await context.audioWorklet.addModule(new URL("pcm16.js", import.meta.url));
  } catch (error) {
    close();
    throw new MicrophoneError(error.name, "The microphone did not start", error.message);
  }
  const node = new AudioWorkletNode(context, "pcm16", {
    numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit",
  });
  node.port.onmessage = ({ data }) => context.state !== "closed" && frame(data);
  stream.getAudioTracks()[0].onended = lost;
  context.createMediaStreamSource(stream).connect(node);
  return close;
}

/** Return how loud a frame is, 0 to 1 over the 60 dB below full scale. */
export function loudness(frame) {
  let sum = 0;
  for (const sample of frame) sum += sample * sample;
  const decibel = 10 * Math.log10(sum / frame.length / 32768 ** 2 + 1e-10);
  return Math.max(0, Math.min(1, 1 + decibel / 60));
}
