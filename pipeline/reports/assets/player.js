"use strict";

// The video, or thumbnails in its place where the browser cannot play it.
//
// offset: seconds that the video's timestamps are ahead of the browser's.
// thumbnailAt: the thumbnail nearest to a time.
// onTime: called with the time whenever the video shows another frame.
function makePlayer({ offset, thumbnailAt, onTime }) {
  const video = byId("video");
  let isPlayable = video !== null;
  let still = 0;

  function showStill(seconds) {
    still = seconds;
    const thumbnail = isPlayable ? null : thumbnailAt(seconds);
    if (!thumbnail) return;
    byId("still-image").src = thumbnail.src;
    byId("still-time").textContent = `Frame at ${clock(thumbnail.seconds)}`;
  }

  function giveUp() {
    isPlayable = false;
    if (video) video.hidden = true;
    byId("still").hidden = false;
    showStill(still);
  }

  function load() {
    const embedded = byId("video-data");
    if (embedded) {
      const bytes = Uint8Array.from(atob(embedded.textContent.trim()), (c) => c.charCodeAt(0));
      video.src = URL.createObjectURL(new Blob([bytes], { type: embedded.dataset.type }));
    }
    const follow = () => onTime(video.currentTime + offset);
    const followFrames = () => {
      follow();
      if (!video.paused && !video.ended) requestAnimationFrame(followFrames);
    };
    video.addEventListener("play", () => requestAnimationFrame(followFrames));
    for (const name of ["timeupdate", "seeked", "pause"]) video.addEventListener(name, follow);
    video.addEventListener("error", giveUp);
    if (video.error) giveUp();
  }

  if (isPlayable) load();
  else giveUp();
  return {
    showStill,
    seek: (seconds) => {
      if (isPlayable) video.currentTime = seconds - offset;
    },
    toggle: () => {
      if (!isPlayable) return;
      if (video.paused) video.play();
      else video.pause();
    },
  };
}
