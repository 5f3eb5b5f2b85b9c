use proto::status::Phase;

/// The languages of the tray, overlay and notifications.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Polski.
    Polish,
    /// Русский.
    Russian,
}

/// All texts in one language.
#[derive(Debug)]
pub(crate) struct Words {
    starting: &'static str,
    ready: &'static str,
    working: &'static str,
    listening: &'static str,
    speaking: &'static str,
    paused: &'static str,
    connecting: &'static str,
    relay_offline: &'static str,
    engine_offline: &'static str,
    error: &'static str,
    stopping: &'static str,
    pub(crate) no_relay: &'static str,
    pub(crate) pause: &'static str,
    pub(crate) resume: &'static str,
    pub(crate) show_overlay: &'static str,
    pub(crate) stop_speaking: &'static str,
    pub(crate) start_at_login: &'static str,
    pub(crate) open: &'static str,
    pub(crate) quit: &'static str,
    pub(crate) asks: &'static str,
    pub(crate) some_program: &'static str,
    pub(crate) allow_once: &'static str,
    pub(crate) allow_always: &'static str,
    pub(crate) deny: &'static str,
}

impl Language {
    /// All languages.
    pub const ALL: [Self; 3] = [Self::English, Self::Polish, Self::Russian];

    /// Parses a locale such as `pl` or `pl_PL.UTF-8`; `None` for any other language.
    #[must_use]
    pub fn of_locale(locale: &str) -> Option<Self> {
        let word = locale
            .split(['_', '.', '-', '@'])
            .next()
            .unwrap_or_default();
        match word.to_ascii_lowercase().as_str() {
            "en" | "c" | "posix" => Some(Self::English),
            "pl" => Some(Self::Polish),
            "ru" => Some(Self::Russian),
            _ => None,
        }
    }

    /// The ISO 639-1 code.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::Polish => "pl",
            Self::Russian => "ru",
        }
    }

    pub(crate) const fn words(self) -> &'static Words {
        match self {
            Self::English => &ENGLISH,
            Self::Polish => &POLISH,
            Self::Russian => &RUSSIAN,
        }
    }
}

impl Words {
    pub(crate) const fn phase(&self, phase: Phase) -> &'static str {
        match phase {
            Phase::Starting => self.starting,
            Phase::Ready => self.ready,
            Phase::Working => self.working,
            Phase::Listening => self.listening,
            Phase::Speaking => self.speaking,
            Phase::Paused => self.paused,
            Phase::Connecting => self.connecting,
            Phase::RelayOffline => self.relay_offline,
            Phase::EngineOffline => self.engine_offline,
            Phase::Error => self.error,
            Phase::Stopping => self.stopping,
        }
    }
}

const ENGLISH: Words = Words {
    starting: "Starting…",
    ready: "Ready",
    working: "Working",
    listening: "Listening",
    speaking: "Speaking",
    paused: "Paused",
    connecting: "Connecting…",
    relay_offline: "The relay cannot be reached",
    engine_offline: "The model engine cannot be reached",
    error: "Needs your attention",
    stopping: "Stopping…",
    no_relay: "No relay is set up",
    pause: "Pause",
    resume: "Resume",
    show_overlay: "Show overlay",
    stop_speaking: "Stop speaking",
    start_at_login: "Start at login",
    open: "Open Hearth",
    quit: "Quit",
    asks: "wants to send a command",
    some_program: "A program",
    allow_once: "Allow once",
    allow_always: "Always allow",
    deny: "Deny",
};

const POLISH: Words = Words {
    starting: "Uruchamianie…",
    ready: "Gotowe",
    working: "Pracuję",
    listening: "Słucham",
    speaking: "Mówię",
    paused: "Wstrzymane",
    connecting: "Łączenie…",
    relay_offline: "Brak połączenia z przekaźnikiem",
    engine_offline: "Silnik modelu nie odpowiada",
    error: "Wymaga Twojej uwagi",
    stopping: "Zamykanie…",
    no_relay: "Nie ustawiono przekaźnika",
    pause: "Wstrzymaj",
    resume: "Wznów",
    show_overlay: "Pokaż nakładkę",
    stop_speaking: "Przestań mówić",
    start_at_login: "Uruchamiaj przy logowaniu",
    open: "Otwórz Hearth",
    quit: "Zakończ",
    asks: "prosi o wydanie polecenia",
    some_program: "Jakiś program",
    allow_once: "Zezwól raz",
    allow_always: "Zezwalaj zawsze",
    deny: "Nie",
};

const RUSSIAN: Words = Words {
    starting: "Запуск…",
    ready: "Готово",
    working: "Работаю",
    listening: "Слушаю",
    speaking: "Говорю",
    paused: "Приостановлено",
    connecting: "Подключение…",
    relay_offline: "Нет связи с ретранслятором",
    engine_offline: "Движок модели недоступен",
    error: "Требуется ваше внимание",
    stopping: "Завершение…",
    no_relay: "Ретранслятор не настроен",
    pause: "Приостановить",
    resume: "Продолжить",
    show_overlay: "Показать оверлей",
    stop_speaking: "Прекратить речь",
    start_at_login: "Запускать при входе",
    open: "Открыть Hearth",
    quit: "Выйти",
    asks: "просит выполнить команду",
    some_program: "Какая-то программа",
    allow_once: "Разрешить один раз",
    allow_always: "Разрешать всегда",
    deny: "Нет",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locale_is_understood_in_all_its_spellings() {
        for (locale, language) in [
            ("en_GB.UTF-8", Some(Language::English)),
            ("C", Some(Language::English)),
            ("pl", Some(Language::Polish)),
            ("pl_PL.UTF-8", Some(Language::Polish)),
            ("RU-ru", Some(Language::Russian)),
            ("de_DE", None),
            ("", None),
        ] {
            assert_eq!(Language::of_locale(locale), language, "{locale}");
        }
        for language in Language::ALL {
            assert_eq!(Language::of_locale(language.code()), Some(language));
        }
    }
}
