//! The terminal: taken over while `top` runs, and given back however it ends.

use std::{io, sync::Once};

use ratatui::{
    Frame, Terminal, TerminalOptions, Viewport,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, Event},
        execute,
        terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::Rect,
};
use tokio::sync::mpsc;

/// Keys that wait while a screen is drawn: a slow link shows what was typed a moment later, and what is typed faster waits in
/// the terminal.
const EVENTS_LEN: usize = 16;

/// The terminal, taken over.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    area: Rect,
}

impl Screen {
    /// Takes the terminal at standard output over.
    pub(super) fn open() -> io::Result<Self> {
        give_back_on_panic();
        let area = size();
        // From here on dropping this gives it back, whatever fails.
        let backend = CrosstermBackend::new(io::stdout());
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let mut screen = Self { terminal: Terminal::with_options(backend, options)?, area };
        enable_raw_mode()?;
        // Not `Terminal::clear`: it asks the terminal where its cursor is, and waits for an answer that may not come.
        execute!(screen.terminal.backend_mut(), EnterAlternateScreen, Hide, Clear(ClearType::All))?;
        Ok(screen)
    }

    /// Draws all of it, in the size that the terminal has now.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        let area = size();
        if area != self.area {
            self.terminal.resize(area)?;
            self.area = area;
        }
        self.terminal.draw(draw)?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// The size of the terminal that is drawn on, whichever one the process was started from.
fn size() -> Rect {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Rect::new(0, 0, size.ws_col, size.ws_row),
        // A serial line does not know its size; what all terminals can show is a good guess.
        _ => Rect::new(0, 0, 80, 24),
    }
}

/// Leaves the terminal as it was. More than once does no harm, and if it is gone nothing can be done.
fn give_back() {
    let _ = disable_raw_mode();
    let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
}

/// A panic's message has to be read where it stays.
fn give_back_on_panic() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

/// Keys and changes of the terminal's size, until it is gone. A thread of its own, because reading a terminal cannot be
/// given up; it ends with the process.
pub(super) fn events() -> io::Result<mpsc::Receiver<Event>> {
    let (events, queue) = mpsc::channel(EVENTS_LEN);
    let read = move || {
        while let Ok(event) = event::read() {
            if events.blocking_send(event).is_err() {
                break;
            }
        }
    };
    std::thread::Builder::new().name("keys".to_owned()).spawn(read)?;
    Ok(queue)
}
