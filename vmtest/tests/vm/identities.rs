//! Whom a process runs as, and what it may not.

use std::sync::Arc;

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use opengcs::{ErrorKind, ProcessSpec, UtilityVm};

use crate::fixture::{error_of, said, shared};

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("identities::users_are_found_by_name_and_number", users),
        shared("identities::a_user_that_is_not_there_is_named", nobody),
        shared("identities::rights_and_limits_are_kept_to", limits),
        shared("identities::a_users_terminal_is_the_users", terminal),
    ]
}

async fn text(vm: &UtilityVm, spec: ProcessSpec) -> Result<String> {
    let output = vm.output(spec, 4096).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {stderr}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

async fn users(vm: Arc<UtilityVm>) -> Result<()> {
    let lists = "cp /etc/passwd /tmp/passwd; cp /etc/group /tmp/group; \
                 echo 'web:x:33:34::/srv/web:/bin/sh' >>/etc/passwd; \
                 echo 'staff:x:50:web' >>/etc/group";
    said(&vm, lists).await?;
    let script = "id -u; id -g; id -G; echo ${HOME-none}";
    let mut wrong = Vec::new();
    for (user, expected) in [
        ("web", "33\n34\n34 50\n/srv/web\n"),
        ("33", "33\n34\n34 50\n/srv/web\n"),
        ("web:staff", "33\n50\n50\n/srv/web\n"),
        ("1234:99", "1234\n99\n99\nnone\n"),
        ("1234", "1234\n0\n0\nnone\n"),
    ] {
        let spec = ProcessSpec::new(["sh", "-c", script]).user(user);
        let said = text(&vm, spec).await?;
        if said != expected {
            wrong.push((user, said));
        }
    }
    said(&vm, "mv /tmp/passwd /etc/passwd; mv /tmp/group /etc/group").await?;
    ensure!(wrong.is_empty(), "{wrong:?}");
    Ok(())
}

async fn nobody(vm: Arc<UtilityVm>) -> Result<()> {
    for user in ["no-such", "0:no-such"] {
        let spec = ProcessSpec::new(["true"]).user(user);
        let error = error_of(vm.run_process(spec).await.map(drop))?;
        ensure!(error.kind() == ErrorKind::GuestRefused, "{error:?}");
        ensure!(error.report().contains("no-such"), "{}", error.report());
    }
    Ok(())
}

async fn limits(vm: Arc<UtilityVm>) -> Result<()> {
    let script = "ulimit -n; ulimit -Hn; grep -E 'NoNewPrivs|CapEff' /proc/self/status; \
                  (: >/etc/passwd) || echo refused";
    let spec = ProcessSpec::new(["sh", "-c", script])
        .user("7:7")
        .no_new_privileges(true)
        .limit("nofile", 20, 30);
    let said = text(&vm, spec).await?;
    ensure!(
        said == "20\n30\nCapEff:\t0000000000000000\nNoNewPrivs:\t1\nrefused\n",
        "{said}"
    );
    Ok(())
}

async fn terminal(vm: Arc<UtilityVm>) -> Result<()> {
    let script = "stty size; stat -c %u $(tty); : </dev/tty && echo opened";
    let spec = ProcessSpec::new(["sh", "-c", script])
        .user("7:7")
        .terminal(true)
        .terminal_size(31, 91);
    let said = text(&vm, spec).await?;
    ensure!(said == "31 91\r\n7\r\nopened\r\n", "{said:?}");
    Ok(())
}
