//! Positions of a prompt's tokens: words and sounds follow each other on all three coordinates, pictures spread over
//! height and width, and frames of a video lie on the time axis where their seconds are.

use causerie_kernels::ops::rope::Position;

use super::OmniError;
use super::config::{MediaIds, ThinkerConfig};

/// Patches of one picture or video: time, height, width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Grid {
    pub frames: usize,
    pub height: usize,
    pub width: usize,
}

/// A video in a prompt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Video {
    /// Its patches.
    pub grid: Grid,
    /// From one grid of patches to the next.
    pub seconds_per_grid: f64,
    /// How long after the beginning of the video before it this one begins, where both are of one stream of frames that
    /// are told as videos of their own.
    pub since: Option<f64>,
}

/// What positions the tokens of a video get that comes with its sound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VideoWithSound {
    /// Both lie on one time axis, as the thinker was trained.
    Merged,
    /// They are counted like words: what the talker gets, because the reference implementation does not tell its talker
    /// that the sound belongs to the video.
    Counted,
}

/// Where the tokens of a prompt are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Positions {
    /// One a token.
    pub of: Vec<Position>,
    /// The position of whatever follows.
    pub next: f64,
}

impl Grid {
    /// Tokens that stand for it when `merge × merge` patches become one.
    pub fn tokens(self, merge: usize) -> usize {
        self.frames * (self.height / merge) * (self.width / merge)
    }

    /// Patches.
    pub fn patches(self) -> usize {
        self.frames * self.height * self.width
    }
}

/// The positions of `tokens`, whose placeholders stand for `images` and `videos` in order.
///
/// # Errors
/// [`OmniError::Input`] if placeholders and media do not fit each other.
pub fn positions(
    config: &ThinkerConfig,
    tokens: &[u32],
    images: &[Grid],
    videos: &[Video],
    video_with_sound: VideoWithSound,
) -> Result<Positions, OmniError> {
    let walk =
        Walk { config, tokens, video_with_sound, at: 0, next: 0.0, began: 0.0, of: Vec::with_capacity(tokens.len()) };
    walk.run(images, videos)
}

struct Walk<'a> {
    config: &'a ThinkerConfig,
    tokens: &'a [u32],
    video_with_sound: VideoWithSound,
    /// The next token.
    at: usize,
    /// Its position, if it is a word.
    next: f64,
    /// Where the last video began.
    began: f64,
    of: Vec<Position>,
}

impl Walk<'_> {
    fn run(mut self, images: &[Grid], videos: &[Video]) -> Result<Positions, OmniError> {
        let MediaIds { image, video, audio_start, vision_start, .. } = self.config.media;
        let (mut images, mut videos) = (images.iter(), videos.iter());
        while let Some(&token) = self.tokens.get(self.at) {
            if token == vision_start && self.tokens.get(self.at + 1) == Some(&audio_start) {
                self.word();
                self.word();
                let video = videos.next().ok_or_else(|| self.short("video"))?;
                match self.video_with_sound {
                    VideoWithSound::Merged => self.merge(*video)?,
                    VideoWithSound::Counted => self.count(),
                }
            } else if token == image {
                let grid = *images.next().ok_or_else(|| self.short("image"))?;
                self.grids(grid, 1.0, image)?;
            } else if token == video {
                let Video { grid, seconds_per_grid, since } = *videos.next().ok_or_else(|| self.short("video"))?;
                if let Some(since) = since {
                    self.next = self.next.max(self.began + since * self.config.positions_per_second);
                }
                self.began = self.next;
                self.grids(grid, seconds_per_grid, video)?;
            } else {
                self.word();
            }
        }
        if images.next().is_some() || videos.next().is_some() {
            return Err(OmniError::Input("there are more pictures than placeholders".into()));
        }
        Ok(Positions { of: self.of, next: self.next })
    }

    fn short(&self, kind: &str) -> OmniError {
        OmniError::Input(format!("the {kind} placeholder at token {} stands for nothing", self.at))
    }

    fn word(&mut self) {
        self.of.push([self.next; 3]);
        self.next += 1.0;
        self.at += 1;
    }

    /// The positions of a grid that starts at `next`, in the order of its tokens.
    fn spread(&self, grid: Grid, seconds_per_grid: f64) -> Vec<Position> {
        let merge = self.config.vision.merge;
        let step = seconds_per_grid * self.config.positions_per_second;
        let (rows, columns, start) = (grid.height / merge, grid.width / merge, self.next);
        let place = |i: usize| {
            let (frame, row, column) = (i / (rows * columns), i / columns % rows, i % columns);
            [start + frame as f64 * step, start + row as f64, start + column as f64]
        };
        (0..grid.tokens(merge)).map(place).collect()
    }

    fn grids(&mut self, grid: Grid, seconds_per_grid: f64, placeholder: u32) -> Result<(), OmniError> {
        let places = self.spread(grid, seconds_per_grid);
        let there = self.tokens[self.at..].iter().take(places.len()).filter(|&&token| token == placeholder).count();
        if there < places.len() || places.is_empty() {
            let problem = format!("{there} placeholders at token {} for {} tokens of a picture", self.at, places.len());
            return Err(OmniError::Input(problem));
        }
        self.at += places.len();
        self.next = largest(&places) + 1.0;
        self.of.extend(places);
        Ok(())
    }

    fn count(&mut self) {
        while self.tokens.get(self.at).is_some_and(|&token| self.config.media.is_placeholder(token)) {
            self.word();
        }
    }

    /// Grids and sounds that share a time axis, in the order of the placeholders.
    fn merge(&mut self, video: Video) -> Result<(), OmniError> {
        let MediaIds { audio, video: placeholder, .. } = self.config.media;
        let mut grid = self.spread(video.grid, video.seconds_per_grid).into_iter();
        let mut sound = self.next;
        let from = self.of.len();
        while let Some(&token) = self.tokens.get(self.at) {
            if token == placeholder {
                let place = grid.next();
                let more = || OmniError::Input("there are more placeholders than tokens of the video".into());
                self.of.push(place.ok_or_else(more)?);
            } else if token == audio {
                self.of.push([sound; 3]);
                sound += 1.0;
            } else {
                break;
            }
            self.at += 1;
        }
        if grid.len() > 0 {
            return Err(OmniError::Input(format!("{} tokens of the video have no placeholder", grid.len())));
        }
        // What follows goes on from the last of them, be it the earlier one: the reference implementation does.
        if self.of.len() > from {
            self.next = largest(&self.of[self.of.len() - 1..]) + 1.0;
        }
        Ok(())
    }
}

fn largest(places: &[Position]) -> f64 {
    places.iter().flatten().copied().fold(f64::NEG_INFINITY, f64::max)
}
