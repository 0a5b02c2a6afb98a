//! The terminal as a screen: what was on it before is there again afterwards, however a run ends.

use std::io::{self, BufWriter, Stderr, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::buffer::Buffer;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Position, Rect};
use ratatui::widgets::Widget;

/// The alternate screen of the terminal behind the standard error; dropping it leaves it.
///
/// The terminal keeps its mode, so that Ctrl-C stays a signal; what somebody types is painted over within a second.
pub(super) struct Screen {
    // Whole pictures at once: it does not flicker.
    backend: CrosstermBackend<BufWriter<Stderr>>,
    is_open: Arc<AtomicBool>,
}

impl Screen {
    pub(super) fn open() -> io::Result<Self> {
        let is_open = Arc::new(AtomicBool::new(true));
        // A panic is told before anything is dropped. Hooks pile up, one for each run of this process, which are few.
        let (before, hook) = (std::panic::take_hook(), is_open.clone());
        std::panic::set_hook(Box::new(move |panic| {
            leave(&hook);
            before(panic);
        }));
        let screen = Self {
            backend: CrosstermBackend::new(BufWriter::new(io::stderr())),
            is_open,
        };
        execute!(io::stderr(), EnterAlternateScreen, Hide)?;
        Ok(screen)
    }

    /// False once a panic has left it.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    /// Paints every cell, whatever stands there: a terminal may have been resized, or typed on.
    pub(super) fn paint(&mut self, picture: impl Widget) -> io::Result<()> {
        if !self.is_open() {
            return Ok(());
        }
        let area = Rect::from((Position::ORIGIN, self.backend.size()?));
        let mut buffer = Buffer::empty(area);
        picture.render(area, &mut buffer);
        let cells = area.positions().map(|at| (at.x, at.y, &buffer[at]));
        self.backend.draw(cells)?;
        self.backend.set_cursor_position(Position::ORIGIN)?;
        Backend::flush(&mut self.backend)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave(&self.is_open);
    }
}

/// Once, as leaving puts the cursor where it was on entering.
fn leave(is_open: &AtomicBool) {
    if is_open.swap(false, Ordering::SeqCst) {
        // A terminal that is gone shows nothing.
        let _left = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _flushed = io::stderr().flush();
    }
}
